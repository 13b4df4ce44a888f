"""Run events of a Dagster run and of its parts: models, tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from openlineage.client import event_v2 as ol

from floe_dagster.observability.lineage import facets
from floe_dagster.observability.lineage.facets import PRODUCER, Assertion
from floe_dagster.observability.trace_context import lineage_run_id
from floe_dagster.schemas.compute import ENGINES
from floe_dagster.schemas.product_index import Asset

START, COMPLETE, FAIL, ABORT = "START", "COMPLETE", "FAIL", "ABORT"
ol.set_producer(PRODUCER)


@dataclass(frozen=True, slots=True)
class LineageRun:
    """A Dagster run, as OpenLineage sees it.

    Args:
        run_id: Dagster's, which is OpenLineage's as well.
        job: Name of the Dagster job.
        root_run_id: Of the run that this one continues; its own where it continues none.
        nominal_time: When a schedule wanted it; ISO 8601.
        tags: Ids of the same run elsewhere.
    """

    run_id: str
    job: str
    root_run_id: str
    nominal_time: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProductLineage:
    """Builds the events of one product.

    Args:
        slug: Of the product.
        namespace: Of its jobs.
        owner: Of the product.
        description: Of the product.
        labels: Of the product.
        source: Gives address, repository and path of a file of the product; None where nobody knows.
        run: The Dagster run.
        engine: Name and version of the processing engine.
    """

    slug: str
    namespace: str
    owner: str
    description: str | None
    labels: Mapping[str, str]
    source: Callable[[str], tuple[str, str | None, str] | None]
    run: LineageRun
    engine: tuple[str, str]
    _made: dict[tuple[str, Any], dict[str, Any]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def run_event(
        self,
        state: str,
        when: datetime,
        *,
        error: str | None = None,
        assertions: Sequence[Assertion] = (),
    ) -> ol.RunEvent:
        """Return an event of the Dagster run.

        Args:
            state: START, COMPLETE, FAIL or ABORT.
            when: Of what it tells.
            error: What a user would want to read.
            assertions: Outcome of each policy that the run evaluated.
        """
        run = self.run
        root = (run.root_run_id, self.namespace, run.job)
        continues = run.root_run_id != run.run_id
        return self._event(
            state,
            when,
            run.run_id,
            run.job,
            facets.job_facets(
                integration="DAGSTER",
                job_type="JOB",
                owners=[self.owner],
                tags=self.labels,
                description=self.description,
                source=self.source("floe.yaml"),
            ),
            parent=root if continues else None,
            error=error,
            assertions=assertions,
        )

    def asset_event(
        self,
        state: str,
        when: datetime,
        asset: Asset,
        *,
        sql: str | None = None,
        inputs: Sequence[ol.InputDataset] = (),
        outputs: Sequence[ol.OutputDataset] = (),
        error: str | None = None,
    ) -> ol.RunEvent:
        """Return an event of one model, seed or snapshot.

        Args:
            state: START, COMPLETE, FAIL or ABORT.
            when: Of what it tells.
            asset: The model, seed or snapshot.
            sql: Compiled query.
            inputs: Datasets that are read.
            outputs: Datasets that are written.
            error: What a user would want to read.
        """
        return self._event(
            state,
            when,
            lineage_run_id(self.run.run_id, asset.id),
            f"{self.slug}.{asset.name}",
            {**self._facets_of_model(asset), **facets.query_facets(sql, _dialect(asset.engine))},
            parent=(self.run.run_id, self.namespace, self.run.job),
            error=error,
            inputs=inputs,
            outputs=outputs,
        )

    def tests_event(
        self,
        state: str,
        when: datetime,
        asset: Asset,
        assertions: Sequence[Assertion],
        *,
        inputs: Sequence[ol.InputDataset] = (),
        error: str | None = None,
    ) -> ol.RunEvent:
        """Return an event of the tests of one model.

        Args:
            state: START, COMPLETE or FAIL.
            when: Of what it tells.
            asset: The model, seed or snapshot.
            assertions: Outcome of each test.
            inputs: The dataset that was tested.
            error: What a user would want to read.
        """
        return self._event(
            state,
            when,
            lineage_run_id(self.run.run_id, f"tests of {asset.id}"),
            f"{self.slug}.{asset.name}.tests",
            self._facets_of_tests(asset),
            parent=(self.run.run_id, self.namespace, self.run.job),
            error=error,
            assertions=assertions,
            inputs=inputs,
        )

    def _event(
        self,
        state: str,
        when: datetime,
        run_id: str,
        job: str,
        job_facets: Mapping[str, Any],
        *,
        parent: tuple[str, str, str] | None,
        error: str | None,
        assertions: Sequence[Assertion] = (),
        inputs: Sequence[ol.InputDataset] = (),
        outputs: Sequence[ol.OutputDataset] = (),
    ) -> ol.RunEvent:
        return ol.RunEvent(
            eventTime=when.astimezone(UTC).isoformat(),
            producer=PRODUCER,
            eventType=ol.RunState[state],
            run=ol.Run(
                runId=run_id,
                facets={**self._facets_of_run(parent), **facets.outcome_facets(error, assertions)},
            ),
            job=ol.Job(namespace=self.namespace, name=job, facets=dict(job_facets)),
            inputs=list(inputs),
            outputs=list(outputs),
        )

    def _facets_of_run(self, parent: tuple[str, str, str] | None) -> dict[str, Any]:
        run = self.run
        return self._once(
            ("run", parent),
            lambda: facets.run_facets(
                parent=parent,
                root=(run.root_run_id, self.namespace, run.job) if parent else None,
                nominal_time=run.nominal_time,
                tags=run.tags,
                engine=self.engine,
            ),
        )

    def _facets_of_model(self, asset: Asset) -> dict[str, Any]:
        return self._once(
            ("model", asset.id),
            lambda: facets.job_facets(
                integration="DBT",
                job_type=asset.type.upper(),
                owners=asset.owners,
                tags=dict.fromkeys(asset.tags, ""),
                description=asset.description or None,
                source=self.source(asset.file),
            ),
        )

    def _facets_of_tests(self, asset: Asset) -> dict[str, Any]:
        return self._once(
            ("tests", asset.id),
            lambda: facets.job_facets(
                integration="DBT",
                job_type="TEST",
                owners=asset.owners,
                source=self.source(asset.file),
                description=f"dbt tests of {asset.name}",
            ),
        )

    def _once(self, key: tuple[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        # What stays the same from START to COMPLETE is made once: a facet checks its addresses whenever it is made.
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def _dialect(engine: str) -> str:
    # A newer version may have compiled for an engine that this one does not know, and died in its run.
    return ENGINES[engine].dialect if engine in ENGINES else engine
