"""The receivers that other tests rely on: driven by the official exporters and clients, in every fault mode."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
import requests
from openlineage.client import event_v2
from openlineage.client.transport.http import HttpCompression, HttpConfig, HttpTransport
from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_logs
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_traces
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http import _log_exporter as http_logs
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from tests.receivers import FaultMode, KeptReceivers, LineageReceiver, OtlpReceiver, Span, Tree
from tests.receivers.serving import serving

RESOURCE = Resource({"service.name": "shop"})
CLOSE_SECONDS = 2


def span_exporter(receiver: Any, transport: str, seconds: float = 5) -> Any:
    if transport == "grpc":
        return grpc_traces.OTLPSpanExporter(receiver.grpc_endpoint, insecure=True, timeout=seconds)
    compressed = Compression.Gzip if transport == "http+gzip" else Compression.NoCompression
    url = f"{receiver.http_endpoint}/v1/traces"
    return http_traces.OTLPSpanExporter(url, timeout=seconds, compression=compressed)


def trace_once(exporter: Any) -> None:
    """Export a small trace: two steps under a run, one of them failed."""
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("floe", "1")
    with tracer.start_as_current_span("run", kind=SpanKind.SERVER) as run:
        with tracer.start_as_current_span(
            "step", attributes={"model": "orders", "rows": 3, "keys": ["a", "b"], "late": False}
        ) as step:
            step.add_event("committed", {"snapshot": 7})
        with tracer.start_as_current_span("step", links=[Link(run.get_span_context(), {"why": "x"})]) as step:
            step.set_status(Status(StatusCode.ERROR, "no such table"))
    provider.shutdown()


@pytest.mark.parametrize("transport", ["grpc", "http", "http+gzip"])
def test_spans_arrive_with_all_that_they_carry(otlp: OtlpReceiver, transport: str) -> None:
    trace_once(span_exporter(otlp, transport))
    tree = otlp.tree()
    assert [(depth, span.name) for depth, span in tree.walk()] == [(0, "run"), (1, "step"), (1, "step")]
    first, second = tree.children(tree.root)
    assert first.attributes == {"model": "orders", "rows": 3, "keys": ["a", "b"], "late": False}
    assert [(event.name, event.attributes) for event in first.events] == [("committed", {"snapshot": 7})]
    assert (second.status, second.status_message) == ("ERROR", "no such table")
    assert [(link.span_id, link.attributes) for link in second.links] == [(tree.root.span_id, {"why": "x"})]
    assert (tree.root.kind, tree.root.status, tree.root.parent_id) == ("SERVER", "UNSET", "")
    assert first.resource["service.name"] == "shop"
    assert first.scope == "floe"
    assert tree.root.start <= first.start <= first.end <= second.start
    assert len(first.trace_id) == 32 and len(first.span_id) == 16
    assert "    step" not in str(tree) and "  step" in str(tree) and "no such table" in str(tree)
    assert {request.transport for request in otlp.requests()} == {transport.partition("+")[0]}


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_metrics_arrive_as_points(otlp: OtlpReceiver, transport: str) -> None:
    exporter = (
        grpc_metrics.OTLPMetricExporter(otlp.grpc_endpoint, insecure=True)
        if transport == "grpc"
        else http_metrics.OTLPMetricExporter(f"{otlp.http_endpoint}/v1/metrics")
    )
    provider = MeterProvider([PeriodicExportingMetricReader(exporter)], resource=RESOURCE)
    meter = provider.get_meter("floe")
    rows = meter.create_counter("rows", "{row}", "Rows written")
    rows.add(2, {"model": "orders"})
    rows.add(3, {"model": "orders"})
    rows.add(1, {"model": "daily"})
    meter.create_gauge("lag", "s").set(1.5)
    meter.create_histogram("duration", "s", explicit_bucket_boundaries_advisory=[1, 10]).record(4)
    provider.shutdown()

    points = {(point.name, point.attributes.get("model")): point for point in otlp.metrics()}
    orders = points["rows", "orders"]
    assert (orders.value, orders.unit, orders.type, orders.monotonic) == (5, "{row}", "sum", True)
    assert (orders.temporality, orders.description) == ("CUMULATIVE", "Rows written")
    assert points["rows", "daily"].value == 1
    assert (points["lag", None].value, points["lag", None].type) == (1.5, "gauge")
    duration = points["duration", None]
    assert (duration.sum, duration.count, duration.bounds, duration.buckets) == (4, 1, (1, 10), (0, 1, 0))
    assert duration.resource["service.name"] == "shop"


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_logs_arrive(otlp: OtlpReceiver, transport: str) -> None:
    exporter: Any = (
        grpc_logs.OTLPLogExporter(endpoint=otlp.grpc_endpoint, insecure=True)
        if transport == "grpc"
        else http_logs.OTLPLogExporter(f"{otlp.http_endpoint}/v1/logs")
    )
    provider = LoggerProvider(RESOURCE)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    provider.get_logger("floe").emit(
        severity_text="WARN", body="late", attributes={"model": "orders"}, event_name="check"
    )
    provider.shutdown()
    (log,) = otlp.logs()
    assert (log.severity, log.body, log.attributes, log.event_name, log.scope) == (
        "WARN",
        "late",
        {"model": "orders"},
        "check",
        "floe",
    )


def test_many_exporters_at_once_lose_nothing(otlp: OtlpReceiver) -> None:
    transports = ["grpc", "http"] * 6
    with ThreadPoolExecutor(len(transports)) as pool:
        list(pool.map(lambda transport: trace_once(span_exporter(otlp, transport)), transports))
    assert len(otlp.spans()) == 3 * len(transports)
    for trace_id in otlp.trace_ids():
        assert len(otlp.tree(trace_id).spans) == 3


@pytest.mark.parametrize(
    ("path", "content_type", "body", "status"),
    [
        ("/v1/traces", "application/x-protobuf", b"{}", 400),
        ("/v1/traces", "application/json", b"{}", 415),
        ("/v1/nothing", "application/x-protobuf", b"", 404),
        ("/v1/metrics", "application/x-protobuf", b"", 200),
    ],
)
def test_what_is_no_export_is_refused(
    otlp: OtlpReceiver, path: str, content_type: str, body: bytes, status: int
) -> None:
    answer = requests.post(
        otlp.http_endpoint + path, data=body, headers={"Content-Type": content_type}, timeout=5
    )
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/x-protobuf"


def test_broken_gzip_is_refused(otlp: OtlpReceiver) -> None:
    headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
    answer = requests.post(f"{otlp.http_endpoint}/v1/traces", data=b"x", headers=headers, timeout=5)
    assert answer.status_code == 400


def test_a_connection_stays_and_chunks_are_read(otlp: OtlpReceiver) -> None:
    message = trace_service_pb2.ExportTraceServiceRequest()
    message.resource_spans.add().scope_spans.add().spans.add(name="chunked")
    body = message.SerializeToString()
    with requests.Session() as session:
        for data in (iter([body[:3], body[3:]]), body):
            answer = session.post(
                f"{otlp.http_endpoint}/v1/traces",
                data=data,
                headers={"Content-Type": "application/x-protobuf"},
                timeout=5,
            )
            assert answer.status_code == 200
            trace_service_pb2.ExportTraceServiceResponse.FromString(answer.content)
        adapter: Any = session.adapters["http://"]
        (pool,) = adapter.poolmanager.pools._container.values()
        assert pool.num_connections == 1
    assert [span.name for span in otlp.spans()] == ["chunked", "chunked"]


HTTP_STATUS = {
    FaultMode.STATUS_500: 500,
    FaultMode.TOO_MANY: 429,
    FaultMode.UNAUTHORIZED: 401,
    FaultMode.BAD_REQUEST: 400,
}
GRPC_STATUS = {
    FaultMode.STATUS_500: grpc.StatusCode.UNAVAILABLE,
    FaultMode.RESET: grpc.StatusCode.UNAVAILABLE,
    FaultMode.TOO_MANY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    FaultMode.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    FaultMode.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
}


def post(receiver: OtlpReceiver | LineageReceiver, seconds: float = 5) -> requests.Response:
    """Send something that an untroubled receiver accepts."""
    if isinstance(receiver, OtlpReceiver):
        return requests.post(
            f"{receiver.http_endpoint}/v1/traces",
            data=_message().SerializeToString(),
            headers={"Content-Type": "application/x-protobuf"},
            timeout=seconds,
        )
    return requests.post(f"{receiver.url}/api/v1/lineage", json=valid_event(), timeout=seconds)


def call(receiver: OtlpReceiver, seconds: float = 5) -> Any:
    """Send the same by gRPC, without the retries of an exporter."""
    with grpc.insecure_channel(receiver.grpc_endpoint.removeprefix("http://")) as channel:
        stub = trace_service_pb2_grpc.TraceServiceStub(channel)
        return stub.Export(_message(), timeout=seconds, metadata=(("authorization", "Bearer x"),))


def _message() -> trace_service_pb2.ExportTraceServiceRequest:
    message = trace_service_pb2.ExportTraceServiceRequest()
    message.resource_spans.add().scope_spans.add().spans.add(name="one")
    return message


def valid_event() -> dict[str, Any]:
    return {
        "eventTime": "2026-01-02T03:04:05Z",
        "producer": "https://example.com",
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "eventType": "START",
        "run": {"runId": str(uuid.UUID(int=1))},
        "job": {"namespace": "floe", "name": "shop"},
    }


def kept(receiver: OtlpReceiver | LineageReceiver) -> int:
    return len(receiver.spans() if isinstance(receiver, OtlpReceiver) else receiver.events())


@pytest.fixture(params=[OtlpReceiver, LineageReceiver])
def receiver(request: pytest.FixtureRequest) -> Iterator[OtlpReceiver | LineageReceiver]:
    with request.param() as made:
        yield made


@pytest.mark.parametrize("mode", HTTP_STATUS)
def test_http_refuses_as_the_mode_says(receiver: OtlpReceiver | LineageReceiver, mode: FaultMode) -> None:
    receiver.mode = mode
    receiver.retry_after_seconds = 3
    answer = post(receiver)
    assert answer.status_code == HTTP_STATUS[mode]
    assert answer.headers.get("Retry-After") == ("3" if mode is FaultMode.TOO_MANY else None)
    assert kept(receiver) == 0
    receiver.mode = FaultMode.OK
    assert post(receiver).ok
    assert kept(receiver) == 1
    assert [request.mode for request in receiver.requests()] == [mode, FaultMode.OK]


@pytest.mark.parametrize("mode", GRPC_STATUS)
def test_grpc_refuses_as_the_mode_says(otlp: OtlpReceiver, mode: FaultMode) -> None:
    otlp.mode = mode
    with pytest.raises(grpc.RpcError) as refused:
        call(otlp)
    assert refused.value.code() is GRPC_STATUS[mode]
    assert otlp.spans() == []
    otlp.mode = FaultMode.OK
    call(otlp)
    assert [span.name for span in otlp.spans()] == ["one"]
    assert otlp.requests()[0].headers["authorization"] == "Bearer x"


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_exporters_retry_what_is_refused_for_now(otlp: OtlpReceiver, transport: str) -> None:
    otlp.mode = FaultMode.TOO_MANY
    exporting = threading.Thread(target=trace_once, args=[span_exporter(otlp, transport)])
    exporting.start()
    otlp.wait_until(lambda: len(otlp.requests()) >= 1)
    otlp.mode = FaultMode.OK
    exporting.join(10)
    assert len(otlp.tree().spans) == 3
    assert len(otlp.requests()) == 4


def test_a_reset_is_no_orderly_end(receiver: OtlpReceiver | LineageReceiver) -> None:
    receiver.mode = FaultMode.RESET
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        post(receiver)
    assert kept(receiver) == 0


def test_slow_keeps_at_once_and_answers_late(receiver: OtlpReceiver | LineageReceiver) -> None:
    receiver.mode = FaultMode.SLOW
    receiver.delay_seconds = 0.5
    with pytest.raises(requests.ReadTimeout):
        post(receiver, seconds=0.1)
    assert kept(receiver) == 1
    began = time.monotonic()
    assert post(receiver).ok
    assert time.monotonic() - began >= 0.5


def test_slow_is_slow_over_grpc(otlp: OtlpReceiver) -> None:
    otlp.mode = FaultMode.SLOW
    otlp.delay_seconds = 0.3
    with pytest.raises(grpc.RpcError) as late:
        call(otlp, seconds=0.1)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    call(otlp)
    assert len(otlp.spans()) == 2


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_a_black_hole_answers_who_still_waits_when_it_is_over(otlp: OtlpReceiver, transport: str) -> None:
    send: Callable[..., Any] = call if transport == "grpc" else post
    otlp.mode = FaultMode.BLACK_HOLE
    with pytest.raises((grpc.RpcError, requests.ReadTimeout)):
        send(otlp, seconds=0.2)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(send, otlp)
        otlp.wait_until(lambda: len(otlp.requests()) == 2)
        assert otlp.spans() == []
        otlp.mode = FaultMode.OK
        waiting.result(5)
    assert len(otlp.spans()) == 1, "what gave up was kept"


def test_closing_is_prompt_whoever_waits(receiver: OtlpReceiver | LineageReceiver) -> None:
    receiver.mode = FaultMode.BLACK_HOLE
    sends: list[Callable[..., Any]] = [post, call] if isinstance(receiver, OtlpReceiver) else [post]
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(send, receiver, seconds=30) for send in sends * 4]
        receiver.wait_until(lambda: len(receiver.requests()) == len(waiting))
        began = time.monotonic()
        receiver.close()
        assert time.monotonic() - began < CLOSE_SECONDS
        for one in waiting:
            assert one.exception(CLOSE_SECONDS), "was answered"
    assert kept(receiver) == 0


def test_closing_is_prompt_while_answers_are_slow(receiver: OtlpReceiver | LineageReceiver) -> None:
    receiver.mode = FaultMode.SLOW
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(post, receiver, seconds=30)
        receiver.wait_until(lambda: kept(receiver))
        began = time.monotonic()
        receiver.close()
        assert isinstance(waiting.exception(CLOSE_SECONDS), requests.ConnectionError)
        assert time.monotonic() - began < CLOSE_SECONDS


def test_down_refuses_and_back_is_at_the_same_place(receiver: OtlpReceiver | LineageReceiver) -> None:
    assert post(receiver).ok
    url = receiver.http_endpoint if isinstance(receiver, OtlpReceiver) else receiver.url
    idle = http.client.HTTPConnection("127.0.0.1", int(url.rpartition(":")[2]), timeout=5)
    idle.request("GET", "/")
    assert idle.getresponse().read()
    receiver.stop_listening()
    assert idle.sock.recv(1) == b"", "connections outlive the server"
    idle.close()
    with pytest.raises(requests.ConnectionError, match="refused"):
        post(receiver)
    if isinstance(receiver, OtlpReceiver):
        with pytest.raises(grpc.RpcError):
            call(receiver)
    receiver.start_listening()
    assert post(receiver).ok
    expected = 2
    if isinstance(receiver, OtlpReceiver):
        call(receiver)
        expected = 3
    assert kept(receiver) == expected


def test_an_exporter_survives_the_time_without_a_receiver(otlp: OtlpReceiver) -> None:
    exporter = span_exporter(otlp, "grpc", seconds=10)
    otlp.stop_listening()
    exporting = threading.Thread(target=trace_once, args=[exporter])
    exporting.start()
    time.sleep(0.2)
    otlp.start_listening()
    exporting.join(15)
    assert len(otlp.tree().spans) == 3


def lineage_event(
    state: event_v2.RunState, run: int, job: str, reads: list[str], writes: list[str]
) -> event_v2.RunEvent:
    return event_v2.RunEvent(
        eventType=state,
        eventTime="2026-01-02T03:04:05Z",
        run=event_v2.Run(runId=str(uuid.UUID(int=run))),
        job=event_v2.Job(namespace="floe", name=job),
        inputs=[event_v2.InputDataset(namespace="s3://w", name=name) for name in reads],
        outputs=[event_v2.OutputDataset(namespace="s3://w", name=name) for name in writes],
    )


@pytest.mark.parametrize("compression", [None, HttpCompression.GZIP])
def test_events_of_the_official_transport_arrive_in_order(
    lineage: LineageReceiver, compression: HttpCompression | None
) -> None:
    transport = HttpTransport(
        HttpConfig(lineage.url, compression=compression, custom_headers={"X-Tenant": "shop"})
    )
    started, completed = event_v2.RunState.START, event_v2.RunState.COMPLETE
    for number, job, reads, writes in (
        (1, "orders", ["raw"], ["orders"]),
        (2, "daily", ["orders", "days"], ["daily"]),
    ):
        for state in (started, completed):
            assert transport.emit(lineage_event(state, number, job, reads, writes)).status_code == 201
    transport.close()

    assert [(event["job"]["name"], event["eventType"]) for event in lineage.events()] == [
        ("orders", "START"),
        ("orders", "COMPLETE"),
        ("daily", "START"),
        ("daily", "COMPLETE"),
    ]
    assert {received.headers["x-tenant"] for received in lineage.received()} == {"shop"}
    assert [received.time for received in lineage.received()] == sorted(
        received.time for received in lineage.received()
    )
    assert [len(events) for events in lineage.runs().values()] == [2, 2]
    assert set(lineage.jobs()) == {("floe", "orders"), ("floe", "daily")}
    assert set(lineage.datasets()) == {("s3://w", name) for name in ("raw", "orders", "days", "daily")}
    graph = lineage.graph()
    assert (("s3://w", "raw"), ("floe", "orders")) in graph.reads
    assert (("floe", "daily"), ("s3://w", "daily")) in graph.writes
    assert {(source[1], target[1]) for source, target in graph.datasets()} == {
        ("raw", "orders"),
        ("orders", "daily"),
        ("days", "daily"),
    }
    assert "s3://w/raw  dataset -> job  floe/orders" in str(graph)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"eventTime": None}, "eventTime is missing"),
        ({"eventTime": "yesterday"}, "eventTime is no time"),
        ({"producer": None}, "producer is missing"),
        ({"schemaURL": None}, "schemaURL is missing"),
        ({"run": None}, "run.runId is missing"),
        ({"run": {}}, "run.runId is missing"),
        ({"run": {"runId": "one"}}, "run.runId is no UUID"),
        ({"job": None}, "job.namespace is missing"),
        ({"job": {"namespace": "floe"}}, "job.name is missing"),
        ({"inputs": [{"name": "raw"}]}, "inputs[0].namespace is missing"),
    ],
)
def test_an_invalid_event_is_refused(lineage: LineageReceiver, damage: dict[str, Any], says: str) -> None:
    answer = requests.post(f"{lineage.url}/api/v1/lineage", json=valid_event() | damage, timeout=5)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(says)
    assert lineage.events() == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", gzip.compress(b"{}", mtime=0)])
def test_what_is_no_event_is_refused(lineage: LineageReceiver, body: bytes) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{lineage.url}/api/v1/lineage", body), timeout=5)
    assert refused.value.code == 400
    assert json.load(refused.value)["code"] == 400


def test_waiting_says_what_was_seen_last(lineage: LineageReceiver) -> None:
    with pytest.raises(AssertionError, match="two events; last seen: False"):
        lineage.wait_until(lambda: len(lineage.events()) == 2, seconds=0.05, what="two events")


def span(name: str, parent: str = "", identifier: str = "") -> Span:
    return Span(
        trace_id="t", span_id=identifier or name, parent_id=parent, name=name, start=ord(name[0]), end=200
    )


@pytest.mark.parametrize(
    ("spans", "says"),
    [
        ([], "no span"),
        ([span("a"), span("b")], "2 roots: ['a', 'b']"),
        ([span("a"), span("b", "gone")], "parents that are not there: ['b -> gone']"),
        ([span("b", "a")], "0 roots"),
        ([span("a"), span("b", "a"), span("b", "a")], "came more than once: ['b']"),
        ([span("a"), span("b", "c"), span("c", "b")], "2 spans are their own ancestors"),
    ],
)
def test_what_is_no_tree_fails_and_is_shown(spans: list[Span], says: str) -> None:
    with pytest.raises(AssertionError) as failed:
        Tree(spans)
    assert says in str(failed.value)
    assert all(f"{one.name}  [{one.span_id}]" in str(failed.value) for one in spans)


def test_a_tree_answers_questions() -> None:
    tree = Tree([span("c", "b"), span("b", "a"), span("a"), span("d", "a")])
    assert str(tree).split("\n")[2].startswith("    c  [c] INTERNAL")
    assert [above.name for above in tree.ancestors(tree.one("c"))] == ["b", "a"]
    assert [below.name for below in tree.children(tree.root)] == ["b", "d"]
    with pytest.raises(AssertionError, match="0 spans are called e"):
        tree.one("e")


def test_two_traces_have_to_be_told_apart(otlp: OtlpReceiver) -> None:
    exporter = span_exporter(otlp, "http")
    trace_once(exporter)
    trace_once(span_exporter(otlp, "http"))
    with pytest.raises(AssertionError, match="2 traces"):
        otlp.tree()
    assert len(otlp.tree(otlp.trace_ids()[0]).spans) == 3
    otlp.clear()
    assert otlp.spans() == [] and otlp.requests() == []


def test_what_a_process_of_its_own_received_outlives_it(tmp_path: Path) -> None:
    with KeptReceivers(tmp_path / "kept") as receivers:
        trace_once(span_exporter(receivers, "grpc"))
        exporter = http_metrics.OTLPMetricExporter(f"{receivers.http_endpoint}/v1/metrics")
        provider = MeterProvider([PeriodicExportingMetricReader(exporter)])
        provider.get_meter("floe").create_counter("rows").add(1)
        provider.shutdown()
        HttpTransport(HttpConfig(receivers.lineage_url)).emit(
            lineage_event(event_v2.RunState.START, 1, "orders", ["raw"], ["orders"])
        )
        os.kill(receivers.process.pid, signal.SIGKILL)
        receivers.process.wait()
        assert [span.name for _, span in receivers.tree().walk()] == ["run", "step", "step"]
        first = receivers.tree().children(receivers.tree().root)[0]
        assert first.events[0].attributes == {"snapshot": 7}
        assert [(point.name, point.value) for point in receivers.metrics()] == [("rows", 1)]
        assert receivers.graph().writes == {(("floe", "orders"), ("s3://w", "orders"))}
        assert receivers.received()[0].headers["content-type"] == "application/json"
    with KeptReceivers(tmp_path / "kept") as again:
        trace_once(span_exporter(again, "http"))
        assert len(again.trace_ids()) == 2, "what was there before is gone"
        again.process.terminate()
        assert again.process.wait(5) == 0


def test_a_process_of_its_own_ends_with_the_tests(tmp_path: Path) -> None:
    with KeptReceivers(tmp_path) as receivers:
        assert receivers.process.stdin
        receivers.process.stdin.close()
        assert receivers.process.wait(5) == 0


def test_a_client_that_is_silent_holds_up_neither_others_over_tls_nor_the_end(
    certificate: tuple[Path, Path],
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with socket.socket() as silent:
        with serving(Handler, certificate) as url:
            silent.connect(("127.0.0.1", urlsplit(url).port))
            assert requests.get(url, verify=str(certificate[0]), timeout=5).status_code == 204
            begun = time.monotonic()
        assert time.monotonic() - begun < CLOSE_SECONDS
