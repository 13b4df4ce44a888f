"""How records leave: addresses, headers, certificates, and what receivers answer."""

from __future__ import annotations

import base64
import contextlib
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from floe_dagster.observability.answers import ReceiverAwayError, RecordRefusedError
from floe_dagster.observability.receiver import Receiver
from floe_dagster.observability.sending import otlp_sender
from tests.receivers import FaultMode, LineageReceiver, OtlpReceiver
from tests.receivers.serving import serving
from tests.unit.delivering import (
    FIELD,
    TROUBLE,
    Kept,
    delivering,
    event,
    lineage_at,
    numbers,
    spans,
    until,
    warnings,
)

pytestmark = pytest.mark.usefixtures("short_pauses")


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


@pytest.mark.parametrize("url", ["http://a..b:4317", "http://*.example.com:4317"])
def test_a_host_that_cannot_be_one_is_told_in_plain_words(url: str) -> None:
    with pytest.raises(ReceiverAwayError, match="is no address"):
        lineage_at(url)([event(1)])


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://127.0.0.1:1/otlp?api_key=s3cret", "http://127.0.0.1:1/otlp "),
        ("http://me:s3cret/a@s3cret@127.0.0.1:1", "http://127.0.0.1:1 "),
        ("http://me:s3cret?a@127.0.0.1:1?key=s3cret", "http://127.0.0.1:1 "),
    ],
)
def test_a_key_in_an_address_is_not_told(protocol: str, address: str, shown: str) -> None:
    with pytest.raises(ReceiverAwayError) as error:
        otlp_sender(Receiver(url=address, protocol=protocol), "traces")([spans(1)])
    assert str(error.value).startswith(shown) and "s3cret" not in str(error.value)


def test_a_query_stays_behind_the_path() -> None:
    handler = type("Handler", (Kept,), {"seen": []})
    with serving(handler) as url:
        lineage_at(f"{url}/in?key=1")([event(1)])
        lineage_at(f"{url}/api/v1/lineage/?key=2")([event(1)])
        otlp_sender(Receiver(url=f"{url}/otlp?key=3"), "traces")([spans(1)])
    assert [seen[""] for seen in handler.seen] == [
        "/in/api/v1/lineage?key=1",
        "/api/v1/lineage?key=2",
        "/otlp/v1/traces?key=3",
    ]


@pytest.mark.parametrize("path", ["", "/v1/traces", "/v1/metrics"])
def test_the_otlp_address_may_hold_either_path(path: str) -> None:
    handler = type("Handler", (Kept,), {"seen": []})
    with serving(handler) as url:
        for signal in ("traces", "metrics"):
            otlp_sender(Receiver(url=url + path), signal)([spans(1)])
    assert [seen[""] for seen in handler.seen] == ["/v1/traces", "/v1/metrics"]


@pytest.mark.parametrize("pause", [0.0, 0.05])
@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_without_an_end_is_not_read_to_it(pause: float, status: int) -> None:
    class Endless(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"." * (10 if pause else 65_536))
                    time.sleep(pause)

        def log_message(self, *arguments: Any) -> None:
            pass

    with serving(Endless) as url:
        send = lineage_at(url, seconds=0.5)
        begun = time.monotonic()
        if status == 200:
            assert send([event(1), event(2)]) is None
        else:
            with pytest.raises(ReceiverAwayError, match=r"answers 500: \.+$"):
                send([event(1)])
        assert time.monotonic() - begun < 5


def test_requests_share_a_connection() -> None:
    ports: set[int] = set()

    class Handler(Kept):
        protocol_version = "HTTP/1.1"
        answer = b"." * 50_000

        def do_POST(self) -> None:
            ports.add(self.client_address[1])
            super().do_POST()

    handler = type("Handler", (Handler,), {"seen": []})
    with serving(handler) as url:
        send = lineage_at(url)
        send([event(1), event(2)])
        send([event(3)])
        send.close()  # type: ignore[attr-defined]
    assert (len(handler.seen), len(ports)) == (3, 1)


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


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("name", ["Bad Header", "a:b", "", "naïve"])
def test_a_header_name_that_is_not_allowed_is_named(otlp: OtlpReceiver, protocol: str, name: str) -> None:
    url = otlp.grpc_endpoint if protocol == "grpc" else otlp.http_endpoint
    with pytest.raises(ReceiverAwayError, match=f"the header {name!r} cannot be sent"):
        otlp_sender(Receiver(url=url, protocol=protocol, headers={name: "s3cret"}), "traces")([spans(1)])


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
        server.stop(0).wait(30)
    assert got == ["2"]


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


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_who_asks_to_wait_has_not_judged_the_record(otlp: OtlpReceiver, protocol: str) -> None:
    otlp.mode, otlp.retry_after_seconds = FaultMode.TOO_MANY, 7
    url = otlp.grpc_endpoint if protocol == "grpc" else otlp.http_endpoint
    with pytest.raises(ReceiverAwayError) as error:
        otlp_sender(Receiver(url=url, protocol=protocol), "traces")([spans(1)])
    assert (error.value.retry_after, error.value.answered) == (7, False)


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


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_sender_that_was_closed_connects_again(otlp: OtlpReceiver, protocol: str) -> None:
    url = otlp.grpc_endpoint if protocol == "grpc" else otlp.http_endpoint
    sender = otlp_sender(Receiver(url=url, protocol=protocol), "traces")
    sender.close()
    for number in (1, 2):
        sender([spans(number)])
        sender.close()
    assert numbers(otlp) == [1, 2]
