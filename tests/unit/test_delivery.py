"""Records on their way to real receivers that are down, silent, slow, broken, and come back."""

from __future__ import annotations

import base64
import json
import logging
import ssl
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from floe_dagster.definitions.observing import process
from floe_dagster.home import FloeHome
from floe_dagster.observability import delivery as module
from floe_dagster.observability.delivery import (
    Delivery,
    ReceiverAwayError,
    RecordRefusedError,
    ReplayEndedError,
    deliver_now,
    flush_all,
)
from floe_dagster.observability.outbox import REFUSED, Outbox
from floe_dagster.observability.sending import Receiver, lineage_sender, otlp_sender
from floe_dagster.schemas.artifacts import ObservabilityConfig, TelemetryConfig
from tests.receivers import FaultMode, LineageReceiver, OtlpReceiver

FIELD = "observability.lineage.endpoint of shop"
TROUBLE = [
    FaultMode.STATUS_500,
    FaultMode.TOO_MANY,
    FaultMode.BLACK_HOLE,
    FaultMode.RESET,
    FaultMode.UNAUTHORIZED,
]


@pytest.fixture
def lineage() -> Iterator[LineageReceiver]:
    with LineageReceiver() as receiver:
        yield receiver


@pytest.fixture
def otlp() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(module, "LONGEST_PAUSE_SECONDS", 0.2)
    # So short pauses would make a few attempts of a trouble that lasts.
    monkeypatch.setattr(module, "ATTEMPTS", 1_000)


def event(number: int) -> bytes:
    made: dict[str, Any] = {
        "eventTime": "2026-01-02T03:04:05+00:00",
        "producer": "https://example.com/tests",
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "eventType": "START",
        "run": {"runId": str(uuid.UUID(int=number))},
        "job": {"namespace": "floe", "name": "shop"},
    }
    return json.dumps(made).encode()


def spans(number: int) -> bytes:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.name, span.trace_id, span.span_id = str(number), b"t" * 16, number.to_bytes(8, "big")
    return base64.b64encode(request.SerializeToString())


def numbers(receiver: LineageReceiver | OtlpReceiver) -> list[int]:
    if isinstance(receiver, OtlpReceiver):
        return [int(span.name) for span in receiver.spans()]
    return [uuid.UUID(found["run"]["runId"]).int for found in receiver.events()]


@contextmanager
def delivering(folder: Path, send: Callable[[Sequence[bytes]], Any], *, batch: int = 5) -> Iterator[Delivery]:
    delivery = Delivery(Outbox(folder), send, batch=batch, name="lineage events", field=FIELD)
    try:
        yield delivery
    finally:
        delivery.close(0)


def lineage_at(url: str, *, seconds: float = 5, **options: Any) -> Callable[[Sequence[bytes]], Any]:
    return lineage_sender(Receiver(url=url, answer_seconds=seconds, field=FIELD, **options))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def until(look: Callable[[], Any], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_records_arrive_in_order_and_leave_nothing(tmp_path: Path, lineage: LineageReceiver) -> None:
    with delivering(tmp_path, lineage_at(lineage.url)) as delivery:
        for number in range(60):
            delivery.put(event(number))
        assert delivery.flush(10)
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


def test_an_answer_that_points_elsewhere_is_not_followed(tmp_path: Path, lineage: LineageReceiver) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(307)
            self.send_header("Location", f"{lineage.url}/api/v1/lineage")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with serving(Handler) as url, pytest.raises(ReceiverAwayError, match="answers 307"):
        lineage_at(url)([event(0)])
    assert lineage.requests() == []


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://nowhere.invalid:4317", "does not resolve"),
        ("http://127.0.0.1:1", "nothing listens there"),
        ("ftp://127.0.0.1:4317", "is no address"),
        ("http://127.0.0.1:99999", "is no address"),
        ("http://[::1:4317", "is no address"),
        ("http://:4317", "is no address"),
        ("collector:port", "is no address"),
        ("127.0.0.1:1", "nothing listens there"),
    ],
)
def test_an_address_that_leads_nowhere_is_told_in_plain_words(
    tmp_path: Path, protocol: str, url: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Receiver(url=url, protocol=protocol, answer_seconds=5, field=FIELD)
    with delivering(tmp_path, otlp_sender(receiver, "traces")) as delivery:
        delivery.put(spans(1))
        until(lambda: delivery.problem)
        time.sleep(0.4)
        assert delivery.outbox.pending() == 1
    (told,) = warnings(caplog)
    assert FIELD in told and said in told and url in told
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_user_and_password_of_an_address_are_not_told(protocol: str) -> None:
    for address in ("http://me:secret@127.0.0.1:1", "me:secret@127.0.0.1:1", "me:secret@[::1"):
        sender = otlp_sender(Receiver(url=address, protocol=protocol), "traces")
        with pytest.raises(ReceiverAwayError) as error:
            sender([spans(1)])
        assert "secret" not in str(error.value) and ("127.0.0.1:1" in str(error.value) or "[::1" in address)


def test_an_address_without_a_scheme_is_served_over_http(otlp: OtlpReceiver) -> None:
    bare = otlp.http_endpoint.removeprefix("http://")
    otlp_sender(Receiver(url=bare, protocol="http"), "traces")([spans(7)])
    otlp_sender(Receiver(url=f"{otlp.http_endpoint}/v1/traces", protocol="http"), "traces")([spans(8)])
    assert numbers(otlp) == [7, 8]


@pytest.mark.parametrize("path", ["", "/", "/api/v1/lineage", "/api/v1/lineage/"])
def test_the_lineage_address_may_hold_the_path(lineage: LineageReceiver, path: str) -> None:
    lineage_at(lineage.url + path)([event(1)])
    assert numbers(lineage) == [1]


def test_secrets_are_looked_up_when_something_is_sent(
    lineage: LineageReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = lineage_at(lineage.url, bearer={"env": "LINEAGE_KEY"}, headers={"X-Team": {"env": "TEAM"}})
    with pytest.raises(ReceiverAwayError, match="TEAM"):
        sender([event(1)])
    monkeypatch.setenv("LINEAGE_KEY", "s3cret")
    monkeypatch.setenv("TEAM", "shop")
    sender([event(2)])
    headers = lineage.received()[0].headers
    assert (headers["authorization"], headers["x-team"]) == ("Bearer s3cret", "shop")
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("value", ["s3cret\n", "s3crét", "a\r\nX-Evil: 1"])
def test_a_header_that_cannot_be_sent_is_named_and_not_shown(
    otlp: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, protocol: str, value: str
) -> None:
    monkeypatch.setenv("OTLP_AUTH", value)
    url = otlp.grpc_endpoint if protocol == "grpc" else otlp.http_endpoint
    receiver = Receiver(url=url, protocol=protocol, headers={"Authorization": {"env": "OTLP_AUTH"}})
    with pytest.raises(ReceiverAwayError, match="Authorization") as error:
        otlp_sender(receiver, "traces")([spans(1)])
    assert "s3c" not in str(error.value) and "Evil" not in str(error.value)
    monkeypatch.setenv("OTLP_AUTH", "Basic abc")
    otlp_sender(receiver, "traces")([spans(2)])
    assert otlp.requests()[-1].headers["authorization"] == "Basic abc"


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


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of localhost that nobody signed but itself."""
    folder = tmp_path_factory.mktemp("tls")
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    made += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(made, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@contextmanager
def serving(
    handler: type[BaseHTTPRequestHandler], certificate: tuple[Path, Path] | None = None
) -> Iterator[str]:
    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"{'https' if certificate else 'http'}://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_certificate_that_nobody_trusts(certificate: tuple[Path, Path]) -> None:
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with serving(Handler, certificate) as url:
        with pytest.raises(ReceiverAwayError, match="certificate is not trusted"):
            lineage_at(url)([event(1)])
        with pytest.raises(ReceiverAwayError, match=r"none.pem cannot be read: No such file"):
            lineage_at(url, certificate_file="none.pem")([event(1)])
        lineage_at(url, certificate_file=str(certificate[0]))([event(2)])
    assert got == [event(2)]


def test_a_certificate_that_nobody_trusts_over_grpc(certificate: tuple[Path, Path]) -> None:
    from concurrent import futures

    import grpc
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

    got: list[str] = []

    class Servicer(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            got.append(request.resource_spans[0].scope_spans[0].spans[0].name)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Servicer(), server)
    pair = (certificate[1].read_bytes(), certificate[0].read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        receiver: dict[str, Any] = {
            "url": f"https://localhost:{port}",
            "protocol": "grpc",
            "answer_seconds": 5,
        }
        with pytest.raises(ReceiverAwayError, match="certificate is not trusted"):
            otlp_sender(Receiver(**receiver), "traces")([spans(1)])
        with pytest.raises(ReceiverAwayError, match=r"none.pem cannot be read: No such file"):
            otlp_sender(Receiver(**receiver, certificate_file="none.pem"), "traces")([spans(1)])
        otlp_sender(Receiver(**receiver, certificate_file=str(certificate[0])), "traces")([spans(2)])
    finally:
        server.stop(None)
    assert got == ["2"]


def test_a_sender_tells_away_from_refused(lineage: LineageReceiver, otlp: OtlpReceiver) -> None:
    with pytest.raises(RecordRefusedError, match=r"answers 400: .*eventTime is missing"):
        lineage_at(lineage.url)([b"{}"])
    for mode, protocol in [(mode, protocol) for mode in TROUBLE for protocol in ("grpc", "http")]:
        otlp.mode = mode
        url = otlp.grpc_endpoint if protocol == "grpc" else otlp.http_endpoint
        receiver = Receiver(url=url, protocol=protocol, answer_seconds=0.3)
        with pytest.raises(ReceiverAwayError, match=url):
            otlp_sender(receiver, "traces")([spans(1)])
    otlp.mode = FaultMode.BAD_REQUEST
    for protocol, url in (("grpc", otlp.grpc_endpoint), ("http", otlp.http_endpoint)):
        with pytest.raises(RecordRefusedError, match=f"{url}.*BAD_REQUEST was asked for"):
            otlp_sender(Receiver(url=url, protocol=protocol), "traces")([spans(1)])


def left_behind(folder: Path, records: Sequence[bytes]) -> Outbox:
    outbox = Outbox(folder)
    for record in records:
        outbox.put(record)
    outbox.close()
    return outbox


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
    monkeypatch.setattr(module, "ATTEMPTS", 5)
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


def picky(bad: Sequence[bytes], error: Exception) -> tuple[list[bytes], Callable[[Sequence[bytes]], Any]]:
    """Return what a receiver took that answers some records with an error, and how to send to it."""
    took: list[bytes] = []

    def send(records: Sequence[bytes]) -> None:
        for record in records:
            if record in bad:
                raise error
            took.append(record)

    return took, send


def answered(said: str = "answers 500") -> ReceiverAwayError:
    return ReceiverAwayError(said, answered=True)


def records_of(folder: Path, count: int) -> list[bytes]:
    records = [b"%d" % number for number in range(count)]
    left_behind(folder, records)
    return records


def refused_in(folder: Path) -> list[bytes]:
    return (folder / REFUSED).read_bytes().splitlines() if (folder / REFUSED).exists() else []


@pytest.mark.parametrize("bad", [[b"0"], [b"0", b"1", b"2"], [b"3", b"5"]])
@pytest.mark.parametrize("batch", [1, 4, 20])
def test_one_record_that_fails_with_an_answer_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: list[bytes], batch: int
) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 3)
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
    monkeypatch.setattr(module, "ATTEMPTS", 2)
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
    monkeypatch.setattr(module, "ATTEMPTS", 2)
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
    monkeypatch.setattr(module, "ATTEMPTS", 2)
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


def test_a_replay_sets_aside_what_blocks_without_long_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 5)
    left_behind(tmp_path, [b"bad"])
    records_of(tmp_path, 4)
    took, send = picky([b"bad", b"2"], answered())
    begun = time.monotonic()
    assert deliver_now(Outbox(tmp_path), send, batch=20) == (3, 2)
    assert time.monotonic() - begun < 3
    assert (sorted(took), refused_in(tmp_path)) == ([b"0", b"1", b"3"], [b"bad", b"2"])
    assert [path.name for path in tmp_path.iterdir()] == [REFUSED]


@pytest.mark.parametrize("record", ["broken", "large"])
def test_what_a_collector_cannot_read_over_grpc_blocks_nobody(
    tmp_path: Path, otlp: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, record: str
) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 5)
    bad = base64.b64encode(b"\x0a\xff\xff" if record == "broken" else b"\0" * 5_000_000)
    left_behind(tmp_path, [spans(1), bad, spans(2), spans(3)])
    sender = otlp_sender(Receiver(url=otlp.grpc_endpoint, protocol="grpc"), "traces")
    assert deliver_now(Outbox(tmp_path), sender, batch=1) == (3, 1)
    assert sorted(numbers(otlp)) == [1, 2, 3]
    assert refused_in(tmp_path) == [bad]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_who_asks_to_wait_has_not_judged_the_record(otlp: OtlpReceiver, protocol: str) -> None:
    otlp.mode, otlp.retry_after_seconds = FaultMode.TOO_MANY, 7
    url = otlp.grpc_endpoint if protocol == "grpc" else otlp.http_endpoint
    with pytest.raises(ReceiverAwayError) as error:
        otlp_sender(Receiver(url=url, protocol=protocol), "traces")([spans(1)])
    assert (error.value.retry_after, error.value.answered) == (7, False)


class Kept(BaseHTTPRequestHandler):
    """Keeps the headers of requests."""

    seen: list[dict[str, str]]
    answer = b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append({name.lower(): value for name, value in self.headers.items()} | {"": self.path})
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *arguments: Any) -> None:
        pass


def test_netrc_does_not_replace_the_manifests_credentials_and_proxies_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("LINEAGE_KEY", "s3cret")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    handler = type("Handler", (Kept,), {"seen": []})
    with serving(handler) as url:
        monkeypatch.setenv("http_proxy", url)
        lineage_at("http://lineage.invalid", bearer={"env": "LINEAGE_KEY"})([event(1)])
        lineage_at("http://lineage.invalid", headers={"Authorization": "Basic abc"})([event(1)])
        lineage_at("http://me:pass@lineage.invalid")([event(1)])
    assert [seen["authorization"] for seen in handler.seen] == [
        "Bearer s3cret",
        "Basic abc",
        f"Basic {base64.b64encode(b'me:pass').decode()}",
    ]
    assert handler.seen[0][""].startswith("http://lineage.invalid/")


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_manifests_certificate_file_wins_over_the_environments(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    import certifi

    monkeypatch.setenv(variable, certifi.where())
    monkeypatch.setenv("no_proxy", "*")
    # Beyond the loopback address' own names, whose senders do not look at the environment at all.
    monkeypatch.setattr(Receiver, "address", lambda receiver: urlsplit("https://elsewhere"))
    handler = type("Handler", (Kept,), {"seen": []})
    with serving(handler, certificate) as url:
        lineage_at(url, certificate_file=str(certificate[0]))([event(2)])
    assert len(handler.seen) == 1


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_certificate_file_that_is_none_is_told(tmp_path: Path, protocol: str) -> None:
    file = tmp_path / "ca.pem"
    for content in (b"", b"garbage\n", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"):
        file.write_bytes(content)
        sender = otlp_sender(
            Receiver(url="https://127.0.0.1:1", protocol=protocol, certificate_file=str(file)), "traces"
        )
        with pytest.raises(
            ReceiverAwayError, match=r"certificate_file .*ca.pem is not a PEM file with certif"
        ):
            sender([spans(1)])


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("name", ["Bad Header", "a:b", "", "naïve"])
def test_a_header_name_that_is_not_allowed_is_named(otlp: OtlpReceiver, protocol: str, name: str) -> None:
    url = otlp.grpc_endpoint if protocol == "grpc" else otlp.http_endpoint
    with pytest.raises(ReceiverAwayError, match=f"the header {name!r} cannot be sent"):
        otlp_sender(Receiver(url=url, protocol=protocol, headers={name: "s3cret"}), "traces")([spans(1)])


def test_grpc_at_a_port_of_http_gets_a_hint(otlp: OtlpReceiver) -> None:
    with pytest.raises(ReceiverAwayError, match="set protocol: http") as error:
        otlp_sender(Receiver(url=otlp.http_endpoint, protocol="grpc"), "traces")([spans(1)])
    assert "Failed parsing" not in str(error.value)


@pytest.mark.parametrize("signal", ["traces", "metrics"])
def test_what_a_collector_rejects_of_a_request_is_told_once_and_not_sent_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, signal: str
) -> None:
    response: Any
    if signal == "traces":
        response = ExportTraceServiceResponse()
        response.partial_success.rejected_spans = 3
    else:
        response = ExportMetricsServiceResponse()
        response.partial_success.rejected_data_points = 3
    response.partial_success.error_message = "too\nold"
    handler = type("Handler", (Kept,), {"seen": [], "answer": response.SerializeToString()})
    with serving(handler) as url:
        sender = otlp_sender(Receiver(url=url, protocol="http", field=FIELD), signal)
        with delivering(tmp_path, sender) as delivery:
            for number in (1, 2, 3):
                delivery.put(spans(number))
            assert delivery.flush(10)
    assert len(handler.seen) == 3
    (told,) = warnings(caplog)
    what = "spans" if signal == "traces" else "data points"
    assert FIELD in told and f"rejects 3 {what}" in told and "too old" in told and url in told


def test_what_a_collector_rejects_over_grpc_is_told(
    otlp: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = otlp_sender(Receiver(url=otlp.grpc_endpoint, protocol="grpc"), "traces")
    assert sender([spans(1)]) is None
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 1
    monkeypatch.setattr(sender, "_export", lambda *arguments, **options: response.SerializeToString())
    assert "rejects 1 spans" in str(sender([spans(1)]))


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
            delivery._send = slow(0.1)  # type: ignore[assignment]
            for number in range(100):
                delivery.put(b"%d" % number)
        found: Any = process.Observed(
            "shop", config, {"product": {}}, telemetry, lineage, None, tmp_path, tmp_path
        )
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
