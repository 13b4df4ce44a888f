"""dbt's nodes and the publication of their tables, seen from outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from floe_dagster.definitions.observing.assertions import TableTests
from floe_dagster.definitions.observing.harmless import harmless
from floe_dagster.definitions.observing.nodes import DbtNodes
from floe_dagster.definitions.observing.step import ObservedStep
from floe_dagster.definitions.observing.times import nanoseconds, seconds_of, when
from floe_dagster.execution.audit import Audit
from floe_dagster.execution.errors import RunError
from floe_dagster.execution.results import Built, Published
from floe_dagster.iceberg.catalogs import table_location
from floe_dagster.iceberg.publication import PublicationResult
from floe_dagster.observability.lineage.datasets import (
    DatasetName,
    column_inputs,
    relation_name,
    table_name,
)
from floe_dagster.observability.logs import product_logger
from floe_dagster.observability.messages import without_values
from floe_dagster.observability.trace_context import lineage_run_id


class ObservedBuild:
    """What one run of a product tells of its models, tests and tables: an `Observer` of the run.

    Args:
        step: The step that does it.
        index: The bundle's asset index.
        policies: Results of the policies by name, as in the bundle's report.
    """

    def __init__(
        self,
        step: ObservedStep,
        index: Mapping[str, Any],
        policies: Mapping[str, Any],
    ) -> None:
        self.step = step
        self.observed = step.observed
        self.assets = {asset["id"]: asset for asset in index["assets"]}
        self.tests = {check["id"]: check for check in index["checks"]}
        self._catalog: Any = None
        self._open: dict[str, float] = {}
        self._names: dict[str, tuple[DatasetName, str | None]] = {}
        self._catalog_is_away = False
        self._lock = threading.Lock()
        self._lineage = step.run.lineage() if self.observed.lineage.enabled else None
        self._nodes = DbtNodes(step, self.assets, self.tests)
        self._tested = TableTests(
            self.observed.lineage,
            self._lineage,
            self.assets,
            self.tests,
            policies,
            self._nodes.test_times,
            self.dataset,
        )

    @property
    def enabled(self) -> bool:
        """Whether anybody listens."""
        return self.observed.enabled

    def catalog_opened(self, catalog: Any) -> None:
        """See `Observer`: what a run reads and does not publish is looked up there."""
        self._catalog = catalog

    @harmless
    def requests(self, counts: Mapping[str, int]) -> None:
        """See `Observer`."""
        for name, count in counts.items():
            if count:
                kind = {"kind": "catalog"} if name == "retries" else {}
                self.observed.telemetry.instruments.add(name, count, product=self.observed.slug, **kind)

    @harmless
    def dbt_event(self, event: Mapping[str, Any]) -> None:
        """Tell what dbt says while it runs: a node began, a node is done.

        Args:
            event: dbt's structured log event.
        """
        if self.enabled and (begun := self._nodes.event(event)):
            asset, at = begun
            self._open[asset["id"]] = at
            if self._lineage is not None:
                self.observed.lineage.emit(self._lineage.asset_event("START", when(at), asset))

    @harmless
    def audited(self, outcome: Audit) -> None:
        """Tell what dbt's results say: failures with their messages, tests as assertions, what is withheld.

        Args:
            outcome: The `Audit`.
        """
        if not self.enabled:
            return
        self._nodes.failed({**outcome.tests, **outcome.results})
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

    def _tell_tests(self, outcome: Audit) -> None:
        """Tell of the tests: at once of tables that stay as they are, of others when they are published."""
        self._tested.add(outcome.tests)
        waiting = {key for key in self._open if self.assets[key]["published"]}
        for asset_id in self._tested.waiting() - waiting:
            self._tested.tell(asset_id)

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
    def done(self, built: Built | Published) -> None:
        """Tell that a model stands: its datasets, columns, lineage and statistics.

        Args:
            built: What the run yields.
        """
        self._open.pop(built.asset, None)
        if self._lineage is None:
            return
        from floe_dagster.observability.lineage.facets import TableState, input_dataset, output_dataset

        asset = self.assets[built.asset]
        described, description = _described(asset), built.description
        counted = description.rows if description else None
        published = built.publication if isinstance(built, Published) else None
        if published is not None:
            name = table_name(
                asset,
                self.observed.slug,
                published.location,
                self.observed.catalog,
                self.observed.engine_of(asset),
            )
            self._names[asset["id"]] = name, str(published.snapshot_id)
            at = published.committed_at or time.time()
        else:
            name = relation_name(asset, self.observed.engine_of(asset))
            at = _finished(built.dbt_result)
        inputs = {self.assets[key]["name"]: self.dataset(self.assets[key]) for key in asset["deps"]}
        names = {key: dataset for key, (dataset, _snapshot) in inputs.items()}
        state = TableState(
            columns=[(name, kind, described.get(name.lower())) for name, kind in built.columns],
            lineage=column_inputs((description.lineage if description else None) or {}, names),
            rows=published.inserted if published else counted,
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
            when(at),
            asset,
            sql=built.dbt_result.get("compiled_code"),
            inputs=[input_dataset(dataset, snapshot=snapshot) for dataset, snapshot in inputs.values()],
            outputs=[output],
        )
        self.observed.lineage.emit(event)
        self._tested.tell(asset["id"])

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
                    "FAIL", when(time.time()), self.assets[key], error=without_values(reason)
                )
            )
        self._tested.tell(key)

    @harmless
    def ended(self, error: BaseException | None) -> None:
        """Tell of everything that began and came to no end of its own."""
        is_failure = isinstance(error, RunError)
        for key in self._tested.waiting():
            self._tested.tell(key)
        for key in list(self._open):
            self._open.pop(key)
            if self._lineage is not None:
                self.observed.lineage.emit(
                    self._lineage.asset_event(
                        "FAIL" if is_failure else "ABORT",
                        when(time.time()),
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
                    return relation_name(asset, self.observed.engine_of(asset)), None
                location, snapshot = found
                name = table_name(
                    asset, self.observed.slug, location, self.observed.catalog, self.observed.engine_of(asset)
                )
                self._names[asset["id"]] = name, snapshot
            return self._names[asset["id"]]

    def _located(self, asset: Mapping[str, Any]) -> tuple[str, str | None] | None:
        if self._catalog_is_away:
            return None
        try:
            return table_location(self._catalog, self.observed.slug, asset["name"])
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


def _tags(asset: Mapping[str, Any]) -> list[tuple[str, str, str | None]]:
    tags: list[tuple[str, str, str | None]] = [(tag, "", None) for tag in asset["tags"]]
    for column in asset["columns"]:
        tags += [(tag, "", column["name"]) for tag in column["tags"]]
        if column["classification"]:
            tags.append(("classification", str(column["classification"]), column["name"]))
    return tags


def _described(asset: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the description of each column, by its name in lower case."""
    return {column["name"].lower(): column["description"] or None for column in asset["columns"]}


def _finished(dbt_result: Mapping[str, Any]) -> float:
    times = [timing.get("completed_at") for timing in dbt_result.get("timing") or ()]
    return seconds_of(times[-1]) if times and times[-1] else time.time()
