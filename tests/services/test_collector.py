"""A real OpenTelemetry collector takes what the SDK exports, and sees what the tests' own receiver sees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from deploy.services import control
from tests.conftest import MANIFEST
from tests.receivers import OtlpReceiver
from tests.services.conftest import TOOLS

RESOURCE = Resource({"service.name": "shop"})


class Collector:
    """A collector of this test alone, and the file that it writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state: dict[str, Any] = {}
        self.start()

    def start(self) -> None:
        """Start, where it was before."""
        self.state = control.start_collector(self.folder, TOOLS)

    def stop(self) -> None:
        """End; what was received is written."""
        control.stop_collector(self.state)

    def written(self, signal: str, scoped: str, kind: str, count: int) -> list[dict[str, Any]]:
        """Return the records of a kind, with their resource, once so many are written."""
        deadline = time.monotonic() + 10
        found: list[dict[str, Any]] = []
        while len(found) < count and time.monotonic() < deadline:
            lines = Path(self.state["file"]).read_text().rpartition("\n")[0].splitlines()
            found = [
                record | {"resource": part["resource"]}
                for line in lines
                for part in json.loads(line).get(signal, ())
                for scope in part[scoped]
                for record in scope[kind]
            ]
            time.sleep(0.05)
        assert len(found) == count, found
        return found

    def all_spans(self) -> list[dict[str, Any]]:
        """Return every span; the collector has to be stopped."""
        return [
            span | {"resource": part["resource"]}
            for line in Path(self.state["file"]).read_text().splitlines()
            for part in json.loads(line).get("resourceSpans", ())
            for scope in part["scopeSpans"]
            for span in scope["spans"]
        ]

    def spans(self, count: int) -> list[dict[str, Any]]:
        """Return the spans, once so many are written."""
        return self.written("resourceSpans", "scopeSpans", "spans", count)


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    made = Collector(tmp_path / "collector")
    try:
        yield made
    finally:
        made.stop()


def by_grpc(target: Any) -> SpanExporter:
    return GrpcSpanExporter(target["grpc_endpoint"], insecure=True)


def by_http(target: Any) -> SpanExporter:
    return HttpSpanExporter(f"{target['http_endpoint']}/v1/traces")


def trace_once(*exporters: SpanExporter) -> None:
    provider = TracerProvider(resource=RESOURCE)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("floe")
    with (
        tracer.start_as_current_span("run"),
        tracer.start_as_current_span("step", attributes={"model": "orders", "rows": 3}) as step,
    ):
        step.add_event("committed", {"snapshot": 7})
    provider.shutdown()


@pytest.mark.parametrize("exporter", [by_grpc, by_http])
def test_spans_are_written_as_the_receiver_has_them(
    collector: Collector, exporter: Callable[[Any], SpanExporter]
) -> None:
    with OtlpReceiver() as receiver:
        own = {"grpc_endpoint": receiver.grpc_endpoint, "http_endpoint": receiver.http_endpoint}
        trace_once(exporter(collector.state), exporter(own))
        received = {span.span_id: span for span in receiver.tree().spans}
    for written in collector.spans(2):
        span = received.pop(written["spanId"])
        assert (written["name"], written["traceId"]) == (span.name, span.trace_id)
        assert written.get("parentSpanId", "") == span.parent_id
        assert (int(written["startTimeUnixNano"]), int(written["endTimeUnixNano"])) == (span.start, span.end)
        assert _attributes(written) == span.attributes
        assert _attributes(written["resource"]) == span.resource
        assert [(event["name"], _attributes(event)) for event in written.get("events", ())] == [
            (event.name, event.attributes) for event in span.events
        ]
    assert not received


def test_metrics_are_written(collector: Collector) -> None:
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(collector.state["grpc_endpoint"], insecure=True)
    )
    provider = MeterProvider([reader], resource=RESOURCE)
    provider.get_meter("floe").create_counter("rows", "{row}").add(5, {"model": "orders"})
    provider.shutdown()
    (metric,) = collector.written("resourceMetrics", "scopeMetrics", "metrics", 1)
    assert (metric["name"], metric["unit"]) == ("rows", "{row}")
    (point,) = metric["sum"]["dataPoints"]
    assert (point["asInt"], _attributes(point)) == ("5", {"model": "orders"})


def test_what_was_written_survives_a_restart_and_the_ports_stay(collector: Collector) -> None:
    before = by_grpc(collector.state)
    trace_once(before)
    collector.stop()
    collector.start()
    trace_once(by_http(collector.state))
    assert len({span["traceId"] for span in collector.spans(4)}) == 2


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_run_gives_one_connected_trace(
    collector: Collector, shop: Path, tmp_path: Path, protocol: str
) -> None:
    endpoint = collector.state[f"{protocol}_endpoint"]
    section = {"tracing": {"endpoint": endpoint, "protocol": protocol}, "lineage": {"transport": "noop"}}
    (shop.parent / "manifest.yaml").write_text(f"{MANIFEST}observability: {json.dumps(section)}\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("floe-dagster"), "run", shop],
        env={**os.environ, "FLOE_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    collector.stop()
    spans = collector.all_spans()
    assert {_attributes(span["resource"])["service.name"] for span in spans} == {"shop"}
    assert len({span["traceId"] for span in spans}) == 1
    known = {span["spanId"]: span for span in spans}
    (root,) = [span for span in spans if not span.get("parentSpanId")]
    assert root["name"] == "run shop_run" and len(known) == len(spans)
    paths = {_path(span, known) for span in spans}
    assert ("run shop_run", "step shop_dbt", "model orders") in paths
    assert ("run shop_run", "step shop_dbt", "publish shop.orders", "commit") in paths


def _path(span: dict[str, Any], known: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    parent = span.get("parentSpanId")
    return (*(_path(known[parent], known) if parent else ()), span["name"])


def _attributes(owner: dict[str, Any]) -> dict[str, Any]:
    """Decode the attributes of OTLP's JSON, which writes whole numbers as text."""
    found = {}
    for pair in owner.get("attributes", ()):
        ((kind, value),) = pair["value"].items()
        found[pair["key"]] = int(value) if kind == "intValue" else value
    return found
