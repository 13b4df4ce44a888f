"""Records that a receiver refuses or cannot digest, and the replay of what was left behind."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from floe_dagster.observability import sweep
from floe_dagster.observability.answers import ReceiverAwayError, RecordRefusedError
from floe_dagster.observability.delivery import Delivery
from floe_dagster.observability.outbox import REFUSED, Outbox
from floe_dagster.observability.receiver import Receiver
from floe_dagster.observability.replay import ReplayEndedError, deliver_now
from floe_dagster.observability.sending import otlp_sender
from tests.receivers import FaultMode, LineageReceiver, OtlpReceiver
from tests.unit.delivering import (
    FIELD,
    answered,
    delivering,
    event,
    left_behind,
    lineage_at,
    numbers,
    picky,
    records_of,
    refused_in,
    spans,
    until,
    warnings,
)

pytestmark = pytest.mark.usefixtures("short_pauses")


def test_what_is_refused_for_ever_holds_nobody_up(
    tmp_path: Path, lineage: LineageReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    with delivering(tmp_path, lineage_at(lineage.url), batch=20) as delivery:
        for number in range(10):
            delivery.put(event(number) if number not in (3, 4, 9) else b'{"number": %d}' % number)
        assert delivery.flush(10)
        assert delivery.dropped == 3
    assert numbers(lineage) == [0, 1, 2, 5, 6, 7, 8]
    assert (tmp_path / REFUSED).read_bytes().splitlines() == [b'{"number": %d}' % n for n in (3, 4, 9)]
    (told,) = warnings(caplog)
    assert FIELD in told and "400" in told and str(tmp_path) in told


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("record", [b"***", b"a", b"\0\0\0\0"])
def test_a_damaged_record_holds_nobody_up(
    tmp_path: Path, otlp: OtlpReceiver, protocol: str, record: bytes
) -> None:
    url = otlp.grpc_endpoint if protocol == "grpc" else otlp.http_endpoint
    with delivering(tmp_path, otlp_sender(Receiver(url=url, protocol=protocol), "traces")) as delivery:
        for put in (spans(1), record, spans(2)):
            delivery.put(put)
        assert delivery.flush(10)
    assert numbers(otlp) == [1, 2]
    assert (tmp_path / REFUSED).read_bytes() == record + b"\n"


def test_refused_records_that_are_not_kept_are_counted_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _took, send = picky([b"%d" % number for number in range(10)], RecordRefusedError("answers 400"))
    outbox = Outbox(tmp_path, refused_limit_bytes=6)
    delivery = Delivery(outbox, send, batch=5, name="lineage events", field=FIELD)
    for number in range(10):
        delivery.put(b"%d" % number)
    assert delivery.flush(5)
    delivery.close(0)
    assert (delivery.refused, refused_in(tmp_path)) == (10, [b"0", b"1", b"2"])
    assert len([told for told in warnings(caplog) if "are not kept from now on" in told]) == 1


@pytest.mark.parametrize("bad", [[b"0"], [b"0", b"1", b"2"], [b"3", b"5"]])
@pytest.mark.parametrize("batch", [1, 4, 20])
def test_one_record_that_fails_with_an_answer_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: list[bytes], batch: int
) -> None:
    monkeypatch.setattr(sweep, "ATTEMPTS", 3)
    took, send = picky(bad, answered())
    with delivering(tmp_path, send, batch=batch) as delivery:
        for number in range(8):
            delivery.put(b"%d" % number)
        until(lambda: delivery.outbox.pending() == 0)
        until(lambda: delivery.problem is None)
        assert (delivery.delivered, delivery.refused, delivery.lost) == (8 - len(bad), len(bad), 0)
    assert sorted(took) == [b"%d" % number for number in range(8) if b"%d" % number not in bad]
    assert refused_in(tmp_path) == bad


@pytest.mark.parametrize("error", [ReceiverAwayError("timed out"), answered()])
def test_where_the_others_fail_as_well_everything_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: ReceiverAwayError
) -> None:
    monkeypatch.setattr(sweep, "ATTEMPTS", 2)
    records = [b"0", b"1", b"2"]
    _took, send = picky(records, error)
    with delivering(tmp_path, send) as delivery:
        for record in records:
            delivery.put(record)
        until(lambda: delivery.problem)
        time.sleep(1)
        assert (delivery.outbox.pending(), delivery.refused) == (3, 0)


def test_a_record_that_gets_no_answer_is_not_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "ATTEMPTS", 2)
    took, send = picky([b"0"], ReceiverAwayError("timed out"))
    with delivering(tmp_path, send) as delivery:
        delivery.put(b"0")
        delivery.put(b"1")
        until(lambda: delivery.problem)
        time.sleep(1)
        assert (delivery.outbox.pending(), took, refused_in(tmp_path)) == (2, [], [])


def test_who_comes_back_between_two_records_gets_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "ATTEMPTS", 2)
    took: list[bytes] = []
    asked: list[bytes] = []

    def send(records: Sequence[bytes]) -> None:
        asked.extend(records)
        if asked.count(b"0") < 3 and b"1" not in asked:
            raise answered()
        took.extend(records)

    with delivering(tmp_path, send) as delivery:
        for number in range(3):
            delivery.put(b"%d" % number)
        until(lambda: delivery.outbox.pending() == 0)
    assert (sorted(took), refused_in(tmp_path)) == ([b"0", b"1", b"2"], [])


@pytest.mark.parametrize("record", ["broken", "large"])
def test_what_a_collector_cannot_read_over_grpc_blocks_nobody(
    tmp_path: Path, otlp: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, record: str
) -> None:
    monkeypatch.setattr(sweep, "ATTEMPTS", 5)
    bad = base64.b64encode(b"\x0a\xff\xff" if record == "broken" else b"\0" * 5_000_000)
    left_behind(tmp_path, [spans(1), bad, spans(2), spans(3)])
    sender = otlp_sender(Receiver(url=otlp.grpc_endpoint, protocol="grpc"), "traces")
    assert deliver_now(Outbox(tmp_path), sender, batch=1) == (3, 1)
    assert sorted(numbers(otlp)) == [1, 2, 3]
    assert refused_in(tmp_path) == [bad]


def test_what_was_left_is_delivered_now(tmp_path: Path, lineage: LineageReceiver) -> None:
    left_behind(tmp_path, [event(0), b"{}", event(1)])
    left_behind(tmp_path, [event(2)])
    assert deliver_now(Outbox(tmp_path), lineage_at(lineage.url), batch=20) == (3, 1)
    assert numbers(lineage) == [0, 1, 2]
    assert deliver_now(Outbox(tmp_path), lineage_at(lineage.url), batch=20) == (0, 0)
    assert [path.name for path in tmp_path.iterdir()] == [REFUSED]


def test_what_cannot_be_delivered_now_stays(
    tmp_path: Path, lineage: LineageReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "ATTEMPTS", 5)
    left_behind(tmp_path, [event(number) for number in range(5)])
    sender = lineage_at(lineage.url)

    def twice(records: Sequence[bytes]) -> None:
        if len(lineage.received()) == 2:
            lineage.mode = FaultMode.STATUS_500
        sender(records)

    with pytest.raises(ReplayEndedError, match="answers 500") as ended:
        deliver_now(Outbox(tmp_path), twice, batch=20)
    assert (ended.value.delivered, ended.value.refused) == (2, 0)
    assert Outbox(tmp_path).pending() == 3
    lineage.mode = FaultMode.OK
    assert deliver_now(Outbox(tmp_path), sender, batch=20) == (3, 0)
    assert numbers(lineage) == [0, 1, 2, 3, 4]


def test_a_replay_that_ends_early_tells_what_was_delivered_and_what_was_refused(tmp_path: Path) -> None:
    left_behind(tmp_path, [b"good", b"bad", b"away"])

    def send(records: Sequence[bytes]) -> None:
        if b"bad" in records:
            raise RecordRefusedError("answers 400")
        if b"away" in records:
            raise ReceiverAwayError("nothing listens there")

    # What the outbox has no room for is refused as well, and not delivered.
    with pytest.raises(ReplayEndedError, match="nothing listens there") as ended:
        deliver_now(Outbox(tmp_path, refused_limit_bytes=1), send, batch=20)
    assert (ended.value.delivered, ended.value.refused) == (1, 1)
    assert Outbox(tmp_path).pending() == 1


def test_a_replay_sets_aside_what_blocks_without_long_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "ATTEMPTS", 5)
    left_behind(tmp_path, [b"bad"])
    records_of(tmp_path, 4)
    took, send = picky([b"bad", b"2"], answered())
    begun = time.monotonic()
    assert deliver_now(Outbox(tmp_path), send, batch=20) == (3, 2)
    assert time.monotonic() - begun < 3
    assert (sorted(took), refused_in(tmp_path)) == ([b"0", b"1", b"3"], [b"bad", b"2"])
    assert [path.name for path in tmp_path.iterdir()] == [REFUSED]
