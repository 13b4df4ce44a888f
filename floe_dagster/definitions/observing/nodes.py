"""dbt's nodes as spans, with the times that dbt says: seeds, models, snapshots and tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from floe_dagster.definitions.observing.step import ObservedStep
from floe_dagster.definitions.observing.times import nanoseconds, seconds_of, when
from floe_dagster.observability.messages import without_values
from floe_dagster.observability.telemetry import fail
from floe_dagster.observability.trace_context import lineage_run_id
from floe_dagster.schemas.product_index import Asset, Check

_STARTED = "LogStartLine"
_RESULTS = frozenset(
    {"LogModelResult", "LogTestResult", "LogSeedResult", "LogSnapshotResult", "LogNodeResult"}
)
_FINE = frozenset({"success", "pass", "warn", "skipped", "no-op"})
_TESTS = frozenset({"test", "unit_test"})


class DbtNodes:
    """Follows what dbt says while it runs.

    Args:
        step: The step that runs it.
        assets: Of the index, by dbt's unique id.
        tests: The same.
    """

    def __init__(self, step: ObservedStep, assets: Mapping[str, Asset], tests: Mapping[str, Check]) -> None:
        self._step = step
        self._observed = step.observed
        self._assets = assets
        self._tests = tests
        self._starts: dict[str, str | None] = {}
        self._late: list[Mapping[str, Any]] = []
        self.test_times: dict[str, tuple[float, float]] = {}
        """When each test began and ended, in seconds since the epoch."""

    def event(self, event: Mapping[str, Any]) -> tuple[Asset, float] | None:
        """Take what dbt says; returns the asset that begins just now, and when, where that is what it says.

        Args:
            event: dbt's structured log event.
        """
        name = event.get("info", {}).get("name")
        node = event.get("data", {}).get("node_info") or {}
        if name == _STARTED:
            unique_id = str(node.get("unique_id"))
            self._starts[unique_id] = node.get("node_started_at")
            asset = self._assets.get(unique_id)
            return None if asset is None else (asset, seconds_of(node.get("node_started_at")))
        if name in _RESULTS and (node := self._finished(node, event["data"])):
            if node.get("node_status") in _FINE:
                self._span(node, None)
            else:
                # The message comes with dbt's results.
                self._late.append(node)
        return None

    def failed(self, results: Mapping[str, Any]) -> None:
        """Tell of the nodes that failed.

        Args:
            results: dbt's, by unique id.
        """
        for node in self._late:
            said = str(
                (results.get(str(node.get("unique_id"))) or {}).get("message") or node.get("node_status")
            )
            self._span(node, without_values(said.strip()))
        self._late.clear()

    def _finished(self, node: Mapping[str, Any], data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what dbt says of a node with its times; of a unit test it gives the beginning and the duration."""
        if node.get("node_started_at") and node.get("node_finished_at"):
            return node
        started = self._starts.get(str(node.get("unique_id")))
        if not started:
            return {}
        ended = when(seconds_of(started) + float(data.get("execution_time") or 0)).isoformat()
        return {
            **node,
            "node_started_at": started,
            "node_finished_at": ended,
            "node_status": str(data.get("status")),
        }

    def _span(self, node: Mapping[str, Any], message: str | None) -> None:
        begun, ended = seconds_of(node["node_started_at"]), seconds_of(node["node_finished_at"])
        unique_id = str(node.get("unique_id"))
        kind, status = str(node.get("resource_type")), str(node.get("node_status"))
        relation = node.get("node_relation") or {}
        is_test = kind in _TESTS
        if is_test:
            self.test_times[unique_id] = (begun, ended)
        test = self._tests.get(unique_id) if is_test else None
        built = self._assets.get(test.asset if test else unique_id)
        described = test if is_test else built
        run, telemetry = self._step.run, self._observed.telemetry
        span = telemetry.start_span(
            f"{kind} {node.get('node_name')}",
            self._step.span,
            start=nanoseconds(begun),
            attributes={
                **run.attributes(),
                "db.system.name": self._observed.engine_of(built).system,
                "db.namespace": relation.get("schema"),
                "db.collection.name": None if is_test else relation.get("alias"),
                "db.operation.name": node.get("materialized"),
                "code.file.path": described.file if described else None,
                "floe.dbt.unique_id": node.get("unique_id"),
                "floe.dbt.status": status,
                "floe.openlineage.node_run_id": None
                if is_test
                else lineage_run_id(run.lineage_id, unique_id),
            },
        )
        if message is not None and telemetry.enabled:
            fail(span, message, f"dbt_{status}")
        span.end(nanoseconds(ended))
        telemetry.instruments.record(
            "model",
            ended - begun,
            product=self._observed.slug,
            node=None if is_test else node.get("node_name"),
            kind=kind,
            status=status,
        )
