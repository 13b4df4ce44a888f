"""The tick of a sensor or schedule that asks for a run is where the run's trace begins."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from floe_dagster.definitions.observing.process import Observed
from floe_dagster.definitions.observing.times import nanoseconds
from floe_dagster.observability.telemetry import trace_parent
from floe_dagster.observability.trace_context import TRACEPARENT


def trace_tick(observed: Callable[[], Observed], name: str, begun: float) -> dict[str, str]:
    """Tell of a tick that asks for a run, and return the run's tags that carry the trace.

    Nothing that goes wrong here keeps a run from being asked for.

    Args:
        observed: Opens the product's telemetry.
        name: Of the span.
        begun: Seconds since the epoch.
    """
    try:
        return _trace_tick(observed(), name, begun)
    except Exception as error:
        logging.getLogger("floe_dagster").warning(
            "%s is not traced: %s: %s", name, type(error).__name__, error
        )
        return {}


def _trace_tick(observed: Observed, name: str, begun: float) -> dict[str, str]:
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
