"""Spans, metrics and logs as plain values, decoded from OTLP messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

Attributes = dict[str, Any]


@dataclass(frozen=True)
class SpanEvent:
    """Something that happened during a span."""

    name: str
    time: int
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True)
class SpanLink:
    """Another span that a span refers to."""

    trace_id: str
    span_id: str
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """One span; identifiers are in hexadecimal, times in nanoseconds.

    Args:
        parent_id: Empty for a root.
        kind: `INTERNAL`, `SERVER`, `CLIENT`, `PRODUCER` or `CONSUMER`.
        status: `UNSET`, `OK` or `ERROR`.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start: int
    end: int
    kind: str = "INTERNAL"
    status: str = "UNSET"
    status_message: str = ""
    attributes: Attributes = field(default_factory=dict)
    events: tuple[SpanEvent, ...] = ()
    links: tuple[SpanLink, ...] = ()
    resource: Attributes = field(default_factory=dict)
    scope: str = ""
    trace_state: str = ""


@dataclass(frozen=True)
class Metric:
    """One point of a metric.

    Args:
        type: `gauge`, `sum`, `histogram`, `exponential_histogram` or `summary`.
        value: Of a gauge or a sum.
        sum: Of a histogram or a summary, like `count`.
        bounds: Upper bounds of the buckets of a histogram; the last bucket has none.
        buckets: How many values fell into each.
        monotonic: Whether a sum only grows.
        temporality: `CUMULATIVE` or `DELTA`; empty where there is none.
    """

    name: str
    unit: str
    type: str
    attributes: Attributes = field(default_factory=dict)
    value: float | int | None = None
    sum: float | None = None
    count: int | None = None
    bounds: tuple[float, ...] = ()
    buckets: tuple[int, ...] = ()
    monotonic: bool = False
    temporality: str = ""
    start: int = 0
    time: int = 0
    description: str = ""
    resource: Attributes = field(default_factory=dict)
    scope: str = ""


@dataclass(frozen=True)
class Log:
    """One log record."""

    time: int
    severity: str
    body: Any
    attributes: Attributes = field(default_factory=dict)
    trace_id: str = ""
    span_id: str = ""
    event_name: str = ""
    resource: Attributes = field(default_factory=dict)
    scope: str = ""


def spans_of(message: ExportTraceServiceRequest) -> Iterator[Span]:
    """Decode an export of spans."""
    for part in message.resource_spans:
        resource = attributes_of(part.resource.attributes)
        for scoped in part.scope_spans:
            for span in scoped.spans:
                yield Span(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    name=span.name,
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    kind=SpanMessage.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    status=Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
                    status_message=span.status.message,
                    attributes=attributes_of(span.attributes),
                    events=tuple(
                        SpanEvent(event.name, event.time_unix_nano, attributes_of(event.attributes))
                        for event in span.events
                    ),
                    links=tuple(
                        SpanLink(link.trace_id.hex(), link.span_id.hex(), attributes_of(link.attributes))
                        for link in span.links
                    ),
                    resource=resource,
                    scope=scoped.scope.name,
                    trace_state=span.trace_state,
                )


def metrics_of(message: ExportMetricsServiceRequest) -> Iterator[Metric]:
    """Decode an export of metrics, into one value a point."""
    for part in message.resource_metrics:
        resource = attributes_of(part.resource.attributes)
        for scoped in part.scope_metrics:
            for metric in scoped.metrics:
                kind = metric.WhichOneof("data")
                if kind is None:
                    continue
                data = getattr(metric, kind)
                temporality = getattr(data, "aggregation_temporality", 0)
                for point in data.data_points:
                    yield Metric(
                        name=metric.name,
                        unit=metric.unit,
                        type=kind,
                        attributes=attributes_of(point.attributes),
                        monotonic=getattr(data, "is_monotonic", False),
                        temporality=AggregationTemporality.Name(temporality).rpartition("_")[2]
                        if temporality
                        else "",
                        start=point.start_time_unix_nano,
                        time=point.time_unix_nano,
                        description=metric.description,
                        resource=resource,
                        scope=scoped.scope.name,
                        **_numbers(kind, point),
                    )


def logs_of(message: ExportLogsServiceRequest) -> Iterator[Log]:
    """Decode an export of log records."""
    for part in message.resource_logs:
        resource = attributes_of(part.resource.attributes)
        for scoped in part.scope_logs:
            for record in scoped.log_records:
                yield Log(
                    time=record.time_unix_nano or record.observed_time_unix_nano,
                    severity=record.severity_text,
                    body=_value(record.body),
                    attributes=attributes_of(record.attributes),
                    trace_id=record.trace_id.hex(),
                    span_id=record.span_id.hex(),
                    event_name=record.event_name,
                    resource=resource,
                    scope=scoped.scope.name,
                )


def attributes_of(pairs: Iterable[Any]) -> Attributes:
    """Decode attributes."""
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return attributes_of(value.kvlist_value.values)
    if kind == "bytes_value":
        return value.bytes_value.hex()
    return getattr(value, kind)


def _numbers(kind: str, point: Any) -> dict[str, Any]:
    if kind in ("gauge", "sum"):
        chosen = point.WhichOneof("value")
        return {"value": getattr(point, chosen) if chosen else None}
    numbers: dict[str, Any] = {"sum": point.sum, "count": point.count}
    if kind == "histogram":
        numbers |= {"bounds": tuple(point.explicit_bounds), "buckets": tuple(point.bucket_counts)}
    elif kind == "exponential_histogram":
        numbers["buckets"] = tuple(point.positive.bucket_counts)
    return numbers
