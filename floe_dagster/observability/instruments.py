"""What is measured, under which names, in which units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
"""Bounds of the histograms: the SDK's own are made for milliseconds."""


class Instruments:
    """The metrics of one product.

    Args:
        meter: OpenTelemetry's; None where nothing is measured.
    """

    def __init__(self, meter: Any) -> None:
        self._meter = meter
        if meter is None:
            return
        counter = meter.create_counter
        histogram = partial(meter.create_histogram, explicit_bucket_boundaries_advisory=_SECONDS)
        self._counters = {
            "rows": counter("floe.publication.rows", "{row}", "Rows written to Iceberg tables."),
            "bytes": counter("floe.publication.bytes", "By", "Bytes written to Iceberg tables."),
            "checks": counter("floe.checks", "{check}", "Outcomes of dbt tests and policies."),
            "findings": counter("floe.findings", "{finding}", "Findings of compilations."),
            "compilations": counter("floe.compilations", "{compilation}", "Compilations, by cache hit."),
            "retries": counter("floe.retries", "{retry}", "What was tried again."),
            "token_refreshes": counter("floe.token.refreshes", "{refresh}", "Tokens of the catalog issued."),
        }
        self._histograms = {
            "model": histogram("floe.model.duration", "s", "Time that dbt takes for a node."),
            "publication": histogram("floe.publication.duration", "s", "Time of a publication."),
            "run": histogram("floe.run.duration", "s", "Time of a step of a run."),
        }

    def add(self, name: str, amount: float, **attributes: Any) -> None:
        """Count.

        Args:
            name: A key of the counters: rows, bytes, checks, findings, compilations, retries, token_refreshes.
            amount: Not negative.
            attributes: Under `floe.`; values that are None are left out.
        """
        if self._meter is not None:
            self._counters[name].add(amount, _attributes(attributes))

    def record(self, name: str, seconds: float, **attributes: Any) -> None:
        """Record a duration.

        Args:
            name: A key of the histograms: model, publication, run.
            seconds: The duration.
            attributes: Under `floe.`; values that are None are left out.
        """
        if self._meter is not None:
            self._histograms[name].record(seconds, _attributes(attributes))

    def observe_queue(self, pending: Callable[[], Mapping[str, int]]) -> None:
        """Measure what waits to be delivered whenever metrics are collected.

        Args:
            pending: Gives the number of records by kind.
        """
        from opentelemetry.metrics import CallbackOptions, Observation

        def look(_options: CallbackOptions) -> Iterable[Observation]:
            return [Observation(count, {"floe.kind": kind}) for kind, count in pending().items()]

        self._meter.create_observable_gauge(
            "floe.telemetry.queue", [look], "{record}", "Telemetry and lineage that nobody took yet."
        )


def _attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {f"floe.{key}": value for key, value in attributes.items() if value is not None}
