"""Traces and metrics of one product, through OpenTelemetry SDK objects of its own.

Nothing global is set and no OTEL_ variable decides: two products in one process stay apart. Spans are batched by the SDK
and then lie in an outbox, so neither the step that makes them nor the end of a run waits for a collector.
"""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from floe_dagster.faults import shown
from floe_dagster.home import FloeHome
from floe_dagster.observability.delivery import Delivery
from floe_dagster.observability.environment import Environment, deployment_environment
from floe_dagster.observability.instruments import Instruments
from floe_dagster.observability.logs import product_logger
from floe_dagster.observability.outbox import Outbox
from floe_dagster.observability.receiver import Receiver
from floe_dagster.observability.sending import otlp_sender
from floe_dagster.observability.trace_context import TraceParent
from floe_dagster.schemas.artifacts import TelemetryConfig

if TYPE_CHECKING:
    from opentelemetry.trace import Span

SCOPE = "floe_dagster"
TRACING_FIELD = "observability.tracing.endpoint"
_next_span: ContextVar[tuple[int, int] | None] = ContextVar("floe_next_span", default=None)


def otlp_receiver(config: TelemetryConfig) -> Receiver:
    """Return who takes a product's traces and metrics."""
    return Receiver(
        url=config.otlp_endpoint,
        protocol=config.otlp_protocol,
        headers=(config.authentication or {}).get("headers") or {},
        certificate_file=config.certificate_file,
        answer_seconds=config.batch_processor.export_timeout_millis / 1000,
        field=TRACING_FIELD,
    )


class Telemetry:
    """Spans and metrics of one product in this process.

    Args:
        product: The product's slug.
        config: Of the artifact.
        home: Outboxes lie here.
        environment: Chooses among the sampling rates; what the platform says when None.
    """

    def __init__(
        self, product: str, config: TelemetryConfig, home: FloeHome, environment: Environment | None = None
    ) -> None:
        self.product = product
        self.config = config
        self.environment = environment or deployment_environment()
        self.deliveries: list[Delivery] = []
        self._processor: Any = None
        self._reader: Any = None
        self.enabled = config.enabled and config.backend != "none" and _is_wanted(config)
        if not self.enabled:
            self.tracer: Any = None
            self.instruments = Instruments(None)
            return
        self._open(home)

    def _open(self, home: FloeHome) -> None:
        from opentelemetry.sdk.metrics import MeterProvider, TraceBasedExemplarFilter
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import SpanLimits, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        resource = Resource(self._resource_attributes())
        span_exporter, metric_exporter = self._exporters(home)
        batch = self.config.batch_processor
        self._processor = BatchSpanProcessor(
            span_exporter,
            max_queue_size=max(batch.max_queue_size, batch.max_export_batch_size),
            max_export_batch_size=batch.max_export_batch_size,
            schedule_delay_millis=batch.schedule_delay_millis,
            export_timeout_millis=batch.export_timeout_millis,
        )
        provider = TracerProvider(
            resource=resource,
            sampler=ParentBased(TraceIdRatioBased(getattr(self.config.sampling, self.environment))),
            id_generator=_ids(),
            # What is left out here is read from the environment.
            span_limits=SpanLimits(
                max_attributes=128,
                max_events=128,
                max_links=128,
                max_span_attributes=128,
                max_event_attributes=128,
                max_link_attributes=128,
                max_attribute_length=SpanLimits.UNSET,
                max_span_attribute_length=SpanLimits.UNSET,
            ),
            shutdown_on_exit=False,
        )
        _undisable(provider)
        provider.add_span_processor(self._processor)
        self.tracer = provider.get_tracer(SCOPE, _version())
        self._reader = PeriodicExportingMetricReader(
            metric_exporter, export_interval_millis=15_000, export_timeout_millis=30_000
        )
        meters = MeterProvider(
            metric_readers=[self._reader],
            resource=resource,
            exemplar_filter=TraceBasedExemplarFilter(),
            shutdown_on_exit=False,
        )
        _undisable(meters)
        self.instruments = Instruments(meters.get_meter(SCOPE, _version()))
        self.instruments.observe_queue(
            lambda: {delivery.name: delivery.outbox.pending() for delivery in self.deliveries}
        )

    def _resource_attributes(self) -> dict[str, Any]:
        from opentelemetry.sdk import version as sdk

        own = self.config.resource_attributes
        attributes: dict[str, Any] = {
            "service.name": own.service_name if own else self.product,
            "service.namespace": "floe",
            "service.instance.id": str(uuid.uuid4()),
            "deployment.environment.name": (own.deployment_environment if own else None) or self.environment,
            "process.pid": os.getpid(),
            "host.name": socket.gethostname(),
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.language": "python",
            "telemetry.sdk.version": sdk.__version__,
        }
        if own:
            attributes |= {
                "service.version": own.service_version,
                "floe.namespace": own.floe_namespace,
                "floe.product.name": own.floe_product_name,
                "floe.product.version": own.floe_product_version,
                "floe.mode": own.floe_mode,
            }
        return attributes

    def _exporters(self, home: FloeHome) -> tuple[Any, Any]:
        if self.config.backend == "console":
            from opentelemetry.sdk.metrics.export import ConsoleMetricExporter
            from opentelemetry.sdk.trace.export import ConsoleSpanExporter

            # Standard output belongs to what a command answers.
            return ConsoleSpanExporter(out=sys.stderr), ConsoleMetricExporter(out=sys.stderr)
        from floe_dagster.observability.otlp_outbox import OutboxMetricExporter, OutboxSpanExporter

        receiver = otlp_receiver(self.config)
        exporters = []
        for signal, exporter in (("traces", OutboxSpanExporter), ("metrics", OutboxMetricExporter)):
            delivery = Delivery(
                Outbox(home.outbox_dir(self.product, signal)),
                otlp_sender(receiver, signal),
                batch=1,
                name=signal,
                field=f"{TRACING_FIELD} of {self.product}",
                log=product_logger(self.product),
            )
            # What earlier processes left is sent along.
            delivery.start()
            self.deliveries.append(delivery)
            exporters.append(exporter(delivery))
        return exporters[0], exporters[1]

    def is_sampled(self, trace_id: int) -> bool:
        """Tell whether a trace that begins here is kept; the same in every process."""
        if not self.enabled:
            return False
        from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

        rate = getattr(self.config.sampling, self.environment)
        return trace_id & ((1 << 64) - 1) < TraceIdRatioBased(rate).bound

    def start_span(
        self,
        name: str,
        parent: TraceParent | Span | None,
        *,
        trace_id: int | None = None,
        span_id: int | None = None,
        start: int | None = None,
        kind: str = "INTERNAL",
        attributes: Mapping[str, Any] | None = None,
    ) -> Span:
        """Begin a span.

        Args:
            name: Of the span.
            parent: Where it hangs; None for the root of a trace.
            trace_id: Of a root.
            span_id: Of this span; random when None.
            start: Nanoseconds since the epoch; now when None.
            kind: Name of OpenTelemetry's SpanKind.
            attributes: Values that are None are left out.
        """
        from opentelemetry import trace
        from opentelemetry.context import Context

        if not self.enabled:
            return trace.INVALID_SPAN
        if isinstance(parent, TraceParent):
            around = trace.NonRecordingSpan(
                trace.SpanContext(
                    parent.trace_id,
                    parent.span_id,
                    is_remote=True,
                    trace_flags=trace.TraceFlags(int(parent.sampled)),
                )
            )
        else:
            around = parent  # type: ignore[assignment]
        context = trace.set_span_in_context(around, Context()) if around is not None else Context()
        token = _next_span.set((trace_id or 0, span_id or 0))
        try:
            return self.tracer.start_span(  # type: ignore[no-any-return]
                name,
                context=context,
                kind=trace.SpanKind[kind],
                attributes={key: value for key, value in (attributes or {}).items() if value is not None},
                start_time=start,
            )
        finally:
            _next_span.reset(token)

    @contextmanager
    def span(self, name: str, parent: TraceParent | Span | None, **options: Any) -> Iterator[Span]:
        """Run a block inside a span; an exception marks it and goes on."""
        span = self.start_span(name, parent, **options)
        try:
            yield span
        except BaseException as error:
            fail(span, error)
            raise
        finally:
            span.end()

    def flush(self, seconds: float) -> bool:
        """Hand over everything and wait as long as the collector answers promptly; the rest is sent later."""
        if not self.enabled:
            return True
        self._processor.force_flush()
        self._reader.force_flush(2_000)
        # Every one of them, also after one that gave up.
        answers = [delivery.flush(seconds) for delivery in self.deliveries]
        return all(answers)

    def close(self, seconds: float) -> None:
        """Flush and end the threads."""
        if not self.enabled:
            return
        self.enabled = False
        self._processor.shutdown()
        self._reader.shutdown(2_000)
        for delivery in self.deliveries:
            delivery.close(seconds)


def fail(span: Span, error: BaseException | str, kind: str | None = None) -> None:
    """Mark a span as failed, with what a user would want to read.

    Args:
        span: Not yet ended.
        error: What went wrong.
        kind: `error.type`; the class of `error` when None.
    """
    from opentelemetry.trace import Status, StatusCode

    said = shown(error) if isinstance(error, BaseException) else error
    message = str(getattr(error, "description", None) or said) or type(error).__name__
    named = kind or (type(error).__name__ if isinstance(error, BaseException) else "error")
    span.set_attribute("error.type", named)
    span.set_status(Status(StatusCode.ERROR, message[:2_000]))
    span.add_event("exception", {"exception.type": named, "exception.message": message[:8_000]})


def trace_parent(span: Span) -> TraceParent:
    """Return the position of a span, to be carried elsewhere."""
    context = span.get_span_context()
    return TraceParent(context.trace_id, context.span_id, context.trace_flags.sampled)


def _is_wanted(config: TelemetryConfig) -> bool:
    """Tell whether somebody is there, where nobody asked for the default endpoint."""
    if not config.endpoint_is_default or config.backend != "otlp":
        return True
    try:
        with socket.create_connection(("localhost", 4317), timeout=0.2):
            return True
    except OSError:
        return False


def _undisable(provider: Any) -> None:
    """Undo OTEL_SDK_DISABLED: the manifest decides."""
    provider._disabled = False


def _ids() -> Any:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class DerivedIds(RandomIdGenerator):
        """Gives the ids that `start_span` was asked for, else random ones."""

        def generate_trace_id(self) -> int:
            return (_next_span.get() or (0, 0))[0] or super().generate_trace_id()

        def generate_span_id(self) -> int:
            return (_next_span.get() or (0, 0))[1] or super().generate_span_id()

    return DerivedIds()


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("floe-dagster")
    except metadata.PackageNotFoundError:
        return "0.0.0"
