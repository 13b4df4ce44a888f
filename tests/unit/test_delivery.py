"""Records on their way to real receivers that are down, silent, slow, broken, and come back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from floe_dagster.definitions.observing import process
from floe_dagster.home import FloeHome
from floe_dagster.observability import delivery as module
from floe_dagster.observability.answers import RecordRefusedError
from floe_dagster.observability.delivery import Delivery, flush_all
from floe_dagster.observability.outbox import Outbox
from floe_dagster.observability.receiver import Receiver
from floe_dagster.observability.sending import otlp_sender
from floe_dagster.schemas.artifacts import ObservabilityConfig, TelemetryConfig
from tests.receivers import FaultMode, LineageReceiver, OtlpReceiver
from tests.receivers.serving import serving
from tests.unit.delivering import (
    FIELD,
    TROUBLE,
    delivering,
    event,
    left_behind,
    lineage_at,
    numbers,
    picky,
    spans,
    until,
    warnings,
)

pytestmark = pytest.mark.usefixtures("short_pauses")


def test_records_arrive_in_order_and_leave_nothing(tmp_path: Path, lineage: LineageReceiver) -> None:
    with delivering(tmp_path, lineage_at(lineage.url)) as delivery:
        for number in range(60):
            delivery.put(event(number))
        # One flush gives up on an answer that comes late, as on a busy machine.
        until(lambda: delivery.flush(10))
        assert (numbers(lineage), delivery.outbox.pending()) == (list(range(60)), 0)
        assert (delivery.problem, delivery.delivered, delivery.dropped) == (None, 60, 0)
    assert list(tmp_path.iterdir()) == []


def test_put_waits_for_nobody(tmp_path: Path, lineage: LineageReceiver) -> None:
    lineage.mode = FaultMode.BLACK_HOLE
    with delivering(tmp_path, lineage_at(lineage.url)) as delivery:
        begun = time.monotonic()
        for number in range(1_000):
            delivery.put(event(number))
        assert time.monotonic() - begun < 2
        lineage.stop_listening()


def test_a_flush_waits_for_an_answer_that_needs_its_time_and_for_many(
    tmp_path: Path, lineage: LineageReceiver
) -> None:
    lineage.mode, lineage.delay_seconds = FaultMode.SLOW, 0.06
    with delivering(tmp_path, lineage_at(lineage.url), batch=20) as delivery:
        for number in range(20):
            delivery.put(event(number))
        assert delivery.flush(10)
    assert numbers(lineage) == list(range(20))


@pytest.mark.parametrize("mode", [FaultMode.SLOW, FaultMode.BLACK_HOLE])
def test_a_flush_does_not_wait_for_who_needs_long(
    tmp_path: Path, lineage: LineageReceiver, mode: FaultMode
) -> None:
    lineage.mode = mode
    with delivering(tmp_path, lineage_at(lineage.url, seconds=60)) as delivery:
        delivery.put(event(0))
        begun = time.monotonic()
        assert not delivery.flush(30)
        assert not delivery.close(30)
        assert time.monotonic() - begun < 2.5
        assert delivery.outbox.pending() == 1
        lineage.stop_listening()


def test_a_flush_gives_up_at_once_where_nobody_listens(tmp_path: Path, lineage: LineageReceiver) -> None:
    lineage.stop_listening()
    with delivering(tmp_path, lineage_at(lineage.url)) as delivery:
        for number in range(100):
            delivery.put(event(number))
        begun = time.monotonic()
        assert not delivery.flush(30)
        assert time.monotonic() - begun < 1
        assert delivery.outbox.pending() == 100


def test_a_flush_of_nothing_is_done(tmp_path: Path) -> None:
    with delivering(tmp_path / "none", lineage_at("http://127.0.0.1:1")) as delivery:
        assert delivery.flush(10)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("mode", [None, *TROUBLE])
def test_whatever_the_trouble_was_everything_arrives_once_it_is_over(
    tmp_path: Path, lineage: LineageReceiver, mode: FaultMode | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "floe_dagster.observability")
    with delivering(tmp_path, lineage_at(lineage.url, seconds=0.2)) as delivery:
        for number in range(10):
            delivery.put(event(number))
        assert delivery.flush(10)
        if mode is None:
            lineage.stop_listening()
        else:
            lineage.mode = mode
        for number in range(10, 30):
            delivery.put(event(number))
        until(lambda: delivery.problem)
        # Long enough for more attempts than one.
        time.sleep(0.8)
        assert delivery.outbox.pending() == 20
        (told,) = warnings(caplog)
        assert FIELD in told and lineage.url in told and str(tmp_path) in told
        assert "\n" not in told and "Traceback" not in caplog.text
        if mode is None:
            lineage.start_listening()
        else:
            lineage.mode = FaultMode.OK
        until(lambda: delivery.outbox.pending() == 0)
        until(lambda: delivery.problem is None)
        assert numbers(lineage) == list(range(30))
        assert len(warnings(caplog)) == 1
        assert f"{FIELD}: the lineage events are taken again" in caplog.text


def test_a_second_trouble_is_told_as_well(
    tmp_path: Path, lineage: LineageReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    with delivering(tmp_path, lineage_at(lineage.url)) as delivery:
        for number in range(2):
            lineage.mode = FaultMode.STATUS_500
            delivery.put(event(number))
            until(lambda: delivery.problem)
            lineage.mode = FaultMode.OK
            until(lambda: not delivery.problem)
    assert len(warnings(caplog)) == 2


def test_trouble_in_the_middle_of_a_batch_sends_nothing_twice(
    tmp_path: Path, lineage: LineageReceiver
) -> None:
    sender = lineage_at(lineage.url)
    calls = 0

    def now_and_then(records: Sequence[bytes]) -> None:
        nonlocal calls
        calls += 1
        lineage.mode = FaultMode.STATUS_500 if calls % 7 == 0 else FaultMode.OK
        sender(records)

    with delivering(tmp_path, now_and_then, batch=20) as delivery:
        for number in range(50):
            delivery.put(event(number))
        until(lambda: delivery.outbox.pending() == 0)
    assert numbers(lineage) == list(range(50))


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("mode", [None, *TROUBLE])
def test_spans_arrive_once_the_trouble_is_over(
    tmp_path: Path, otlp: OtlpReceiver, protocol: str, mode: FaultMode | None
) -> None:
    url = otlp.grpc_endpoint if protocol == "grpc" else otlp.http_endpoint
    receiver = Receiver(url=url, protocol=protocol, answer_seconds=0.3, field=FIELD)
    if mode is None:
        otlp.stop_listening()
    else:
        otlp.mode = mode
    with delivering(tmp_path, otlp_sender(receiver, "traces"), batch=1) as delivery:
        for number in range(1, 6):
            delivery.put(spans(number))
        until(lambda: delivery.problem)
        assert url in str(delivery.problem)
        assert not delivery.flush(30)
        if mode is None:
            otlp.start_listening()
        else:
            otlp.mode = FaultMode.OK
        until(lambda: delivery.outbox.pending() == 0, 20)
    assert numbers(otlp) == [1, 2, 3, 4, 5]


def test_the_receiver_says_how_long_to_wait(tmp_path: Path, lineage: LineageReceiver) -> None:
    lineage.mode, lineage.retry_after_seconds = FaultMode.TOO_MANY, 1
    with delivering(tmp_path, lineage_at(lineage.url)) as delivery:
        delivery.put(event(0))
        until(lambda: len(lineage.requests()) == 2)
        lineage.mode = FaultMode.OK
        until(lambda: delivery.outbox.pending() == 0)
    times = [request.time for request in lineage.requests()]
    assert times[1] - times[0] >= 0.9


@pytest.mark.parametrize("asked", ["0", "-5", "nan", "soon", "Wed, 21 Oct 2030 07:28:00 GMT"])
def test_a_wait_that_makes_no_sense_does_not_make_it_hurry(tmp_path: Path, asked: str) -> None:
    calls: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            calls.append(self.path)
            self.send_response(429)
            self.send_header("Retry-After", asked)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with serving(Handler) as url, delivering(tmp_path, lineage_at(url)) as delivery:
        delivery.put(event(0))
        until(lambda: calls)
        time.sleep(0.5)
        assert 2 <= len(calls) <= 12
    assert set(calls) == {"/api/v1/lineage"}


def test_whatever_goes_wrong_the_thread_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[bytes] = []

    def odd(records: Sequence[bytes]) -> None:
        calls.extend(records)
        if len(calls) < 3:
            raise ZeroDivisionError("odd")

    with delivering(tmp_path, odd) as delivery:
        delivery.put(b"1")
        until(lambda: delivery.outbox.pending() == 0)
    (told,) = warnings(caplog)
    assert "ZeroDivisionError" in told and FIELD in told and "Traceback" not in caplog.text


def test_the_next_process_delivers_what_the_last_one_left(tmp_path: Path, lineage: LineageReceiver) -> None:
    left_behind(tmp_path, [event(0), event(1)])
    with delivering(tmp_path, lineage_at(lineage.url)) as delivery:
        delivery.start()
        until(lambda: len(lineage.received()) == 2)
        delivery.put(event(2))
        assert delivery.flush(10)
    assert numbers(lineage) == [0, 1, 2]
    assert list(tmp_path.iterdir()) == []


def test_many_threads_hand_over_at_once(tmp_path: Path, lineage: LineageReceiver) -> None:
    with delivering(tmp_path, lineage_at(lineage.url)) as delivery:

        def hand_over(first: int) -> None:
            for number in range(first, first + 25):
                delivery.put(event(number))

        threads = [threading.Thread(target=hand_over, args=[first]) for first in range(0, 200, 25)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert delivery.flush(20)
    assert sorted(numbers(lineage)) == list(range(200))


def test_a_full_outbox_is_told_once_with_the_field(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox(tmp_path, limit_bytes=200, segment_bytes=50)
    delivery = Delivery(outbox, lineage_at("http://127.0.0.1:1"), batch=5, name="lineage events", field=FIELD)
    for number in range(30):
        delivery.put(b"%020d" % number)
    delivery.close(0)
    lost = [told for told in warnings(caplog) if "are lost from now on" in told]
    assert len(lost) == 1 and FIELD in lost[0] and str(tmp_path) in lost[0]
    assert delivery.dropped > 0
    assert Outbox(tmp_path).pending() == 30 - delivery.dropped


def test_each_loss_is_told_also_after_a_refusal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "floe_dagster.observability")
    _took, send = picky([b"bad"], RecordRefusedError("answers 400"))
    with delivering(tmp_path, send) as delivery:
        delivery.put(b"bad")
        until(lambda: delivery.refused == 1)
        for _ in range(2):
            delivery.outbox.limit_bytes = 0
            delivery.outbox._end_segment()
            delivery.put(b"1")
            delivery.put(b"2")
            delivery.outbox.limit_bytes = 1_000
            delivery.put(b"3")
        assert (delivery.lost, delivery.refused, delivery.dropped) == (4, 1, 5)
        assert delivery.flush(5)
    assert len([told for told in warnings(caplog) if "are lost from now on" in told]) == 2
    assert caplog.text.count("lineage events are kept again; 2 were lost") == 2


def test_one_problem_of_two_deliveries_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, otlp: OtlpReceiver
) -> None:
    receiver = Receiver(url=otlp.http_endpoint, headers={"X": {"env": "FLOE_NOT_SET"}}, field=FIELD)
    with (
        delivering(tmp_path / "traces", otlp_sender(receiver, "traces")) as traces,
        delivering(tmp_path / "metrics", otlp_sender(receiver, "metrics")) as metrics,
    ):
        for delivery in (traces, metrics):
            delivery.put(spans(1))
        until(lambda: traces.problem and metrics.problem)
    (told,) = warnings(caplog)
    assert "FLOE_NOT_SET" in told and "Nothing is lost and no run is held up: " in told


def slow(seconds: float) -> Callable[[Sequence[bytes]], Any]:
    return lambda records: time.sleep(seconds)


def test_several_deliveries_share_one_deadline(tmp_path: Path) -> None:
    # Every answer is prompt, there are only many of them.
    with (
        delivering(tmp_path / "a", slow(0.1)) as one,
        delivering(tmp_path / "b", slow(0.1)) as other,
        delivering(tmp_path / "c", slow(0.1)) as none,
    ):
        for delivery in (one, other, none):
            for number in range(50):
                delivery.put(b"%d" % number)
        begun = time.monotonic()
        assert not flush_all([(one, 0.6), (other, 0.6), (none, 0.0)])
        assert 0.5 < time.monotonic() - begun < 0.9
        for delivery in (one, other, none):
            delivery.end_within(0.5)
        begun = time.monotonic()
        for delivery in (one, other, none, one):
            delivery.close(30)
        assert time.monotonic() - begun < 0.8


def test_a_close_of_a_thread_that_ended_returns_at_once(tmp_path: Path) -> None:
    with delivering(tmp_path, slow(0)) as delivery:
        delivery.put(b"1")
        assert delivery.flush(5) and delivery.close(5)
        # Nobody is there who would send this one.
        delivery.put(b"2")
        begun = time.monotonic()
        assert not delivery.flush(30) and not delivery.close(30)
        assert time.monotonic() - begun < 0.5


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Callable[[float], process.Observed]]:
    """Makes what is said of a product whose three receivers answer promptly, and never come to an end."""

    def watch(drain: float) -> process.Observed:
        home = FloeHome(tmp_path)
        config = ObservabilityConfig(
            telemetry=TelemetryConfig(enabled=True, backend="otlp", otlp_endpoint="http://127.0.0.1:1"),
            lineage_endpoint="http://127.0.0.1:1",
            lineage_drain_seconds=drain,
        )
        telemetry, lineage = process._opened("shop", config, home)
        for delivery in telemetry.deliveries:
            delivery.sweep.send = slow(0.1)
            for number in range(100):
                delivery.put(b"%d" % number)
        found: Any = process.Observed("shop", config, {"product": {}}, telemetry, lineage, None, {}, tmp_path)
        return found

    yield watch
    process._close_all()


@pytest.mark.parametrize(
    ("seconds", "drain", "least", "most"), [(0.5, 1.0, 0.9, 1.4), (0.5, 0.0, 0.4, 0.9), (0.0, 0.0, 0.0, 0.3)]
)
def test_the_end_of_a_run_waits_as_long_as_the_longest_of_its_limits(
    watched: Callable[[float], process.Observed], seconds: float, drain: float, least: float, most: float
) -> None:
    observed = watched(drain)
    assert [delivery.name for delivery in observed.telemetry.deliveries] == [
        "traces",
        "metrics",
        "lineage events",
    ]
    begun = time.monotonic()
    observed.flush(seconds)
    assert least <= time.monotonic() - begun < most


def test_the_end_of_a_process_is_short_altogether(watched: Callable[[float], process.Observed]) -> None:
    watched(600.0)
    begun = time.monotonic()
    process._close_all()
    assert time.monotonic() - begun < process.EXIT_SECONDS + 0.4


class Held:
    """A receiver that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.answer = threading.Event()
        self.took: list[bytes] = []

    def __call__(self, records: Sequence[bytes]) -> None:
        self.asked.set()
        assert self.answer.wait(30)
        self.took.extend(records)


def taken(folder: Path) -> list[bytes]:
    """Take what nobody holds a lock on."""
    found: list[bytes] = []
    for segment in Outbox(folder).segments():
        found += segment.read(100)
        segment.release()
    return found


def test_a_close_while_a_request_hangs_gives_the_rest_back_once_that_ends(tmp_path: Path) -> None:
    held = Held()
    with delivering(tmp_path, held) as delivery:
        for number in range(4):
            delivery.put(b"%d" % number)
        assert held.asked.wait(5)
        begun = time.monotonic()
        assert not delivery.close(0.1)
        assert time.monotonic() - begun < 2
        # It may still be taken, so nobody else may send it.
        assert taken(tmp_path) == []
        held.answer.set()
        until(lambda: taken(tmp_path) == [b"1", b"2", b"3"])
        assert held.took == [b"0"], "a delivery that is closed sends nothing more"


def test_what_is_handed_over_after_a_close_is_for_the_next_one(tmp_path: Path) -> None:
    with delivering(tmp_path, slow(0)) as delivery:
        delivery.put(b"1")
        assert delivery.close(5)
        delivery.put(b"2")
        assert taken(tmp_path) == [b"2"]


def test_a_closed_delivery_leaves_at_once_what_it_waited_to_repeat(
    tmp_path: Path, lineage: LineageReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 60.0)
    lineage.mode = FaultMode.STATUS_500
    with delivering(tmp_path, lineage_at(lineage.url)) as delivery:
        delivery.put(b"1")
        until(lambda: delivery.problem)
        delivery.close(0)
        assert taken(tmp_path) == [b"1"]


def test_segments_that_cannot_be_taken_over_are_told_once_and_hold_nobody_up(
    tmp_path: Path,
    lineage: LineageReceiver,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    for number in range(2):
        left_behind(tmp_path, [event(number)])
    locked = sorted(tmp_path.glob("*.records"))
    for path in locked:
        # What nobody can open as a file, the superuser included.
        path.with_name(f"{path.name}.lock").unlink()
        path.with_name(f"{path.name}.lock").mkdir()
    left_behind(tmp_path, [event(2)])
    with delivering(tmp_path, lineage_at(lineage.url)) as delivery:
        delivery.start()
        until(lambda: numbers(lineage) == [2])
        delivery.put(event(3))
        assert delivery.flush(5)
        time.sleep(0.3)
        (told,) = warnings(caplog)
        assert FIELD in told and str(locked[0]) in told and "(and 1 more)" in told
        assert "Is a directory" in told and ".lock" in told
        assert delivery.outbox.look_for_unreachable().keys() == set(locked)
        for path in locked:
            path.with_name(f"{path.name}.lock").rmdir()
        until(lambda: delivery.outbox.pending() == 0)
        assert delivery.outbox.look_for_unreachable() == {}
    assert sorted(numbers(lineage)) == [0, 1, 2, 3]
