"""Exporters that put OTLP requests into an outbox; a `Delivery` sends them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from floe_dagster.observability.delivery import Delivery


class OutboxSpanExporter(SpanExporter):
    """Takes batches of spans.

    Args:
        delivery: Sends them.
    """

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._delivery.put(_record(encode_spans(spans)))
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True

    def shutdown(self) -> None:
        """Nothing to end here: the delivery is closed by its owner."""


class OutboxMetricExporter(MetricExporter):
    """Takes collections of metrics.

    Args:
        delivery: Sends them.
    """

    def __init__(self, delivery: Delivery) -> None:
        super().__init__()
        self._delivery = delivery

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        if metrics_data.resource_metrics:
            self._delivery.put(_record(encode_metrics(metrics_data)))
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing to end here: the delivery is closed by its owner."""


def _record(message: Any) -> bytes:
    return base64.b64encode(message.SerializeToString())
