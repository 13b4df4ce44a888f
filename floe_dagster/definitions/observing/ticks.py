"""The tick of a sensor or schedule that asks for a run is where the run's trace begins."""

from __future__ import annotations

import time

from floe_dagster.definitions.observing.process import Observed
from floe_dagster.definitions.observing.runs import nanoseconds
from floe_dagster.observability.telemetry import trace_parent
from floe_dagster.observability.trace_context import TRACEPARENT


def trace_tick(observed: Observed, name: str, begun: float) -> dict[str, str]:
    """Tell of a tick that asks for a run, and return the run's tags that carry the trace.

    Args:
        observed: The product.
        name: Of the span.
        begun: Seconds since the epoch.
    """
    telemetry = observed.telemetry
    if not telemetry.enabled:
        return {}
    span = telemetry.start_span(
        name,
        None,
        start=nanoseconds(begun),
        kind="PRODUCER",
        attributes={"floe.product": observed.slug, "code.function.name": name.rpartition(" ")[2]},
    )
    span.end(nanoseconds(time.time()))
    return {TRACEPARENT: str(trace_parent(span))}
