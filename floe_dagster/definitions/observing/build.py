"""dbt's nodes and the publication of their tables, seen from outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from floe_dagster.definitions.observing.harmless import harmless
from floe_dagster.definitions.observing.runs import nanoseconds
from floe_dagster.definitions.observing.step import ObservedStep
from floe_dagster.iceberg.publication import PublicationResult
from floe_dagster.observability.lineage.datasets import (
    DatasetName,
    column_inputs,
    relation_name,
    table_name,
)
from floe_dagster.observability.logs import product_logger
from floe_dagster.observability.messages import without_values
from floe_dagster.observability.telemetry import fail
from floe_dagster.observability.trace_context import lineage_run_id

_RESULTS = frozenset(
    {"LogModelResult", "LogTestResult", "LogSeedResult", "LogSnapshotResult", "LogNodeResult"}
)
_FINE = frozenset({"success", "pass", "warn", "skipped", "no-op"})
_LIVE = "LogStartLine"


class ObservedBuild:
    """What one run of a product tells of its models, tests and tables.

    Args:
        step: The step that does it.
        index: The bundle's asset index.
        policies: Results of the policies by name, as in the bundle's report.
        location_of: Gives location and snapshot of a table that stands; None where there is none.
    """

    def __init__(
        self,
        step: ObservedStep,
        index: Mapping[str, Any],
        policies: Mapping[str, Any],
        location_of: Callable[[str], tuple[str, str | None] | None],
    ) -> None:
        self.step = step
        self.observed = step.observed
        self.assets = {asset["id"]: asset for asset in index["assets"]}
        self.tests = {check["id"]: check for check in index["checks"]}
        self.policies = policies
        self._location_of = location_of
        self._open: dict[str, float] = {}
        self._late: list[Mapping[str, Any]] = []
        self._names: dict[str, tuple[DatasetName, str | None]] = {}
        self._catalog_is_away = False
        self._tested: dict[str, dict[str, Any]] = {}
        self._starts: dict[str, str | None] = {}
        self._test_times: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()
        self._lineage = step.run.lineage() if self.observed.lineage.enabled else None

    @property
    def enabled(self) -> bool:
        """Whether anybody listens."""
        return self.observed.enabled

    @harmless
    def dbt_event(self, event: Mapping[str, Any]) -> None:
        """Tell what dbt says while it runs: a node began, a node is done.

        Args:
            event: dbt's structured log event.
        """
        if not self.enabled:
            return
        name = event.get("info", {}).get("name")
        node = event.get("data", {}).get("node_info") or {}
        if name == _LIVE:
            self._starts[str(node.get("unique_id"))] = node.get("node_started_at")
            asset = self.assets.get(node.get("unique_id"))
            if asset is not None:
                self._begun(asset, _seconds(node.get("node_started_at")))
        elif name in _RESULTS and (node := self._finished_node(node, event["data"])):
            if node.get("node_status") in _FINE:
                self._node_span(node, None)
            else:
                # The message comes with dbt's results.
                self._late.append(node)

    def _finished_node(self, node: Mapping[str, Any], data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what dbt says of a node with its times; of a unit test it gives the beginning and the duration."""
        if node.get("node_started_at") and node.get("node_finished_at"):
            return node
        started = self._starts.get(str(node.get("unique_id")))
        if not started:
            return {}
        ended = _when(_seconds(started) + float(data.get("execution_time") or 0)).isoformat()
        return {
            **node,
            "node_started_at": started,
            "node_finished_at": ended,
            "node_status": str(data.get("status")),
        }

    def _begun(self, asset: Mapping[str, Any], begun: float) -> None:
        self._open[asset["id"]] = begun
        if self._lineage is not None:
            self.observed.lineage.emit(self._lineage.asset_event("START", _when(begun), asset))

    def _node_span(self, node: Mapping[str, Any], message: str | None) -> None:
        begun, ended = _seconds(node["node_started_at"]), _seconds(node["node_finished_at"])
        kind, status = str(node.get("resource_type")), str(node.get("node_status"))
        relation = node.get("node_relation") or {}
        is_test = kind in ("test", "unit_test")
        if is_test:
            self._test_times[str(node.get("unique_id"))] = (begun, ended)
        known = self.tests if is_test else self.assets
        entry = known.get(str(node.get("unique_id"))) or {}
        span = self.observed.telemetry.start_span(
            f"{kind} {node.get('node_name')}",
            self.step.span,
            start=nanoseconds(begun),
            attributes={
                **self.step.run.attributes(),
                "db.system.name": "duckdb",
                "db.namespace": relation.get("schema"),
                "db.collection.name": None if is_test else relation.get("alias"),
                "db.operation.name": node.get("materialized"),
                "code.file.path": entry.get("file"),
                "floe.dbt.unique_id": node.get("unique_id"),
                "floe.dbt.status": status,
                "floe.openlineage.node_run_id": None
                if is_test
                else lineage_run_id(self.step.run.lineage_id, str(node.get("unique_id"))),
            },
        )
        if message is not None and self.observed.telemetry.enabled:
            fail(span, message, f"dbt_{status}")
        span.end(nanoseconds(ended))
        self.observed.telemetry.instruments.record(
            "model",
            ended - begun,
            product=self.observed.slug,
            node=None if is_test else node.get("node_name"),
            kind=kind,
            status=status,
        )

    @harmless
    def audited(self, outcome: Any) -> None:
        """Tell what dbt's results say: failures with their messages, tests as assertions, what is withheld.

        Args:
            outcome: The `Audit`.
        """
        if not self.enabled:
            return
        results = {**outcome.tests, **outcome.results}
        for node in self._late:
            said = str((results.get(node.get("unique_id")) or {}).get("message") or node.get("node_status"))
            self._node_span(node, without_values(said.strip()))
        self._late.clear()
        for key, result in outcome.tests.items():
            check = self.tests[key]
            self.observed.telemetry.instruments.add(
                "checks",
                1,
                product=self.observed.slug,
                kind=check["type"],
                level=check["severity"],
                outcome=result["status"],
            )
        for key, reason in outcome.withheld.items():
            # A log takes the first line of what dbt says; here there is room for all of it.
            said = str((outcome.results.get(key) or {}).get("message") or "").strip()
            failed = key not in outcome.built and said
            self.refused(key, f"{reason.partition(': ')[0]}: {said}" if failed else reason)
        self._tell_tests(outcome)

    def _tell_tests(self, outcome: Any) -> None:
        """Tell of the tests: at once of tables that stay as they are, of others when they are published."""
        for key, result in outcome.tests.items():
            if result["status"] != "skipped":
                self._tested.setdefault(self.tests[key]["asset"], {})[key] = result
        waiting = {key for key in self._open if self.assets[key]["published"]}
        for asset_id in self._tested.keys() - waiting:
            self._tell_tests_of(asset_id)

    def _tell_tests_of(self, asset_id: str) -> None:
        results = self._tested.pop(asset_id, None)
        if results is None or self._lineage is None:
            return
        from floe_dagster.observability.lineage.facets import Assertion, input_dataset

        asset = self.assets[asset_id]
        assertions = [_assertion(self.tests[key], result) for key, result in results.items()]
        governed = [
            Assertion(
                name=name,
                kind=f"policy:{name}",
                success=not (found := _findings(policy, asset["name"])),
                severity="error" if policy["status"] == "failed" else "warn",
                description=f"governance, level {policy['level']}",
                actual=str(found),
            )
            for name, policy in self.policies.items()
            if policy.get("status") != "off"
        ]
        name, snapshot = self.dataset(asset)
        tested = [input_dataset(name, snapshot=snapshot, assertions=[*assertions, *governed])]
        times = [self._test_times[key] for key in results if key in self._test_times]
        now = time.time()
        begun = min((time[0] for time in times), default=now)
        ended = max((time[1] for time in times), default=now)
        failed = [one for one in assertions if not one.success and one.severity == "error"]
        error = f"failed: {', '.join(one.name for one in failed)}" if failed else None
        emit, lineage = self.observed.lineage.emit, self._lineage
        emit(lineage.tests_event("START", _when(begun), asset, []))
        state = "FAIL" if failed else "COMPLETE"
        emit(lineage.tests_event(state, _when(ended), asset, assertions, inputs=tested, error=error))

    @contextmanager
    def publishing(self, asset: Mapping[str, Any]) -> Iterator[list[PublicationResult]]:
        """Run one publication inside its span.

        Args:
            asset: As in the asset index.

        Yields:
            A list that takes the result.
        """
        result: list[PublicationResult] = []
        if not self.observed.telemetry.enabled:
            yield result
            return
        name = f"{self.observed.slug}.{asset['name']}"
        with self.observed.telemetry.span(
            f"publish {name}",
            self.step.span,
            attributes={
                **self.step.run.attributes(),
                "db.system.name": "iceberg",
                "db.namespace": self.observed.slug,
                "db.collection.name": asset["name"],
                "db.operation.name": "publish",
                "floe.openlineage.node_run_id": lineage_run_id(self.step.run.lineage_id, asset["id"]),
            },
        ) as span:
            yield result
            for published in result:
                self._published(span, asset, published)

    @harmless
    def _published(self, span: Any, asset: Mapping[str, Any], result: PublicationResult) -> None:
        telemetry, slug = self.observed.telemetry, self.observed.slug
        for name, begun, ended in result.timeline:
            telemetry.start_span(name, span, start=nanoseconds(begun)).end(nanoseconds(ended))
        span.set_attributes(
            {
                "floe.iceberg.snapshot_id": str(result.snapshot_id),
                "floe.iceberg.location": result.location,
                "floe.iceberg.write_mode": result.mode,
                "floe.rows": result.inserted,
                "floe.bytes": result.written_bytes,
                "floe.commit.attempts": result.attempts,
            }
        )
        told = {"product": slug, "table": asset["name"]}
        telemetry.instruments.add("rows", result.inserted, **told)
        telemetry.instruments.add("bytes", result.written_bytes, **told)
        telemetry.instruments.record("publication", result.seconds, **told, mode=result.mode)
        if result.attempts > 1:
            telemetry.instruments.add("retries", result.attempts - 1, **told, kind="commit")

    @harmless
    def done(
        self,
        asset: Mapping[str, Any],
        dbt_result: Mapping[str, Any],
        metadata: Mapping[str, Any],
        published: PublicationResult | None,
    ) -> None:
        """Tell that a model stands: its datasets, columns, lineage and statistics.

        Args:
            asset: As in the asset index.
            dbt_result: dbt's result of building it.
            metadata: Of its materialization.
            published: Its publication; None where it is not published.
        """
        self._open.pop(asset["id"], None)
        if self._lineage is None:
            return
        from floe_dagster.observability.lineage.facets import TableState, input_dataset, output_dataset

        if published is not None:
            name = table_name(
                asset, self.observed.slug, published.location, self.observed.catalog, self.observed.duckdb
            )
            self._names[asset["id"]] = name, str(published.snapshot_id)
            when = published.committed_at or time.time()
        else:
            name = relation_name(asset, self.observed.duckdb)
            when = _finished(dbt_result)
        inputs = {self.assets[key]["name"]: self.dataset(self.assets[key]) for key in asset["deps"]}
        names = {key: dataset for key, (dataset, _snapshot) in inputs.items()}
        state = TableState(
            columns=[
                (column.name, column.type, column.description)
                for column in getattr(metadata.get("dagster/column_schema"), "columns", ())
            ],
            lineage=column_inputs(_column_lineage(metadata.get("dagster/column_lineage")), names),
            rows=published.inserted if published else metadata.get("dagster/row_count"),
            bytes=published.written_bytes if published else None,
            files=published.written_files if published else None,
            snapshot=str(published.snapshot_id) if published else None,
            created=bool(published and published.created),
            kind="VIEW" if asset["materialized"] == "view" else "TABLE",
        )
        output = output_dataset(
            name,
            state,
            catalog=self.observed.catalog if published else None,
            owners=asset["owners"],
            tags=_tags(asset),
            description=asset["description"] or None,
        )
        event = self._lineage.asset_event(
            "COMPLETE",
            _when(when),
            asset,
            sql=dbt_result.get("compiled_code"),
            inputs=[input_dataset(dataset, snapshot=snapshot) for dataset, snapshot in inputs.values()],
            outputs=[output],
        )
        self.observed.lineage.emit(event)
        self._tell_tests_of(asset["id"])

    @harmless
    def refused(self, key: str, reason: str) -> None:
        """Tell that a model failed, or is not published.

        Args:
            key: dbt's unique id.
            reason: For people.
        """
        if self._open.pop(key, None) is not None and self._lineage is not None:
            self.observed.lineage.emit(
                self._lineage.asset_event(
                    "FAIL", _when(time.time()), self.assets[key], error=without_values(reason)
                )
            )
        self._tell_tests_of(key)

    @harmless
    def ended(self, error: BaseException | None) -> None:
        """Tell of everything that began and came to no end of its own."""
        is_failure = isinstance(error, dg.Failure)
        for key in list(self._tested):
            self._tell_tests_of(key)
        for key in list(self._open):
            self._open.pop(key)
            if self._lineage is not None:
                self.observed.lineage.emit(
                    self._lineage.asset_event(
                        "FAIL" if is_failure else "ABORT",
                        _when(time.time()),
                        self.assets[key],
                        error="the run ended before it was published",
                    )
                )

    def dataset(self, asset: Mapping[str, Any]) -> tuple[DatasetName, str | None]:
        """Return what an asset's dataset is called, and its snapshot where it is a table.

        Args:
            asset: As in the asset index.
        """
        with self._lock:
            if asset["id"] not in self._names:
                found = self._located(asset) if asset["published"] else None
                if found is None:
                    return relation_name(asset, self.observed.duckdb), None
                location, snapshot = found
                name = table_name(
                    asset, self.observed.slug, location, self.observed.catalog, self.observed.duckdb
                )
                self._names[asset["id"]] = name, snapshot
            return self._names[asset["id"]]

    def _located(self, asset: Mapping[str, Any]) -> tuple[str, str | None] | None:
        if self._catalog_is_away:
            return None
        try:
            return self._location_of(asset["name"])
        except (
            Exception
        ) as error:  # what is told of the run must neither fail it nor wait for the catalog again
            self._catalog_is_away = True
            product_logger(self.observed.slug).info(
                "lineage: %s cannot be looked up: %s", asset["name"], error
            )
            return None

    def links(self, asset: Mapping[str, Any]) -> dict[str, dg.MetadataValue]:
        """Return the metadata that leads from a materialization to its trace and its lineage.

        Args:
            asset: As in the asset index.
        """
        from urllib.parse import quote

        found: dict[str, dg.MetadataValue] = {}
        run, config = self.step.run, self.observed.config
        if self.observed.telemetry.enabled:
            trace_id = f"{run.trace.trace_id:032x}"
            found["floe/trace_id"] = dg.MetadataValue.text(trace_id)
            # A trace that is not kept has no page.
            if config.telemetry.trace_url and run.trace.sampled:
                found["floe/trace"] = dg.MetadataValue.url(
                    config.telemetry.trace_url.replace("{trace_id}", trace_id)
                )
        if self.observed.lineage.enabled:
            found["floe/openlineage_run_id"] = dg.MetadataValue.text(
                lineage_run_id(run.lineage_id, asset["id"])
            )
            if config.dataset_url:
                name, _snapshot = self.dataset(asset)
                url = config.dataset_url.replace("{namespace}", quote(name.namespace, safe=""))
                found["floe/lineage"] = dg.MetadataValue.url(url.replace("{name}", quote(name.name, safe="")))
        return found


def _assertion(check: Mapping[str, Any], result: Mapping[str, Any]) -> Any:
    from floe_dagster.observability.lineage.facets import Assertion

    failures = result.get("failures")
    return Assertion(
        name=check["name"],
        kind=check.get("kind") or "custom_sql",
        success=result["status"] == "pass",
        severity=check["severity"],
        column=check.get("column"),
        description=check["description"] or None,
        actual=None if failures is None else str(failures),
    )


def _findings(policy: Mapping[str, Any], model: str) -> int:
    return sum(finding.get("model") == model for finding in policy.get("findings", ()))


def _tags(asset: Mapping[str, Any]) -> list[tuple[str, str, str | None]]:
    tags: list[tuple[str, str, str | None]] = [(tag, "", None) for tag in asset["tags"]]
    for column in asset["columns"]:
        tags += [(tag, "", column["name"]) for tag in column["tags"]]
        if column["classification"]:
            tags.append(("classification", str(column["classification"]), column["name"]))
    return tags


def _column_lineage(lineage: Any) -> dict[str, Sequence[tuple[str, str]]]:
    found: dict[str, Sequence[tuple[str, str]]] = {}
    for column, sources in getattr(lineage, "deps_by_column", {}).items():
        found[column] = [(source.asset_key.path[-1], source.column_name) for source in sources]
    return found


def _finished(dbt_result: Mapping[str, Any]) -> float:
    times = [timing.get("completed_at") for timing in dbt_result.get("timing") or ()]
    return _seconds(times[-1]) if times and times[-1] else time.time()


def _seconds(text: str | None) -> float:
    """Return a time of dbt's as seconds since the epoch: UTC, whether or not it says so."""
    if not text:
        return time.time()
    when = datetime.fromisoformat(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _when(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
