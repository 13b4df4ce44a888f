"""The step that runs a product: what Dagster asks of it, handed to `execution/`, and what comes of it, handed back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.definitions.observing.build import ObservedBuild
from floe_dagster.definitions.observing.process import Observed
from floe_dagster.definitions.observing.step import ObservedStep
from floe_dagster.definitions.outcomes import (
    as_failures,
    carried_over,
    check_result,
    evaluation,
    materialization,
    report_columns,
)
from floe_dagster.definitions.recorded_attempts import RecordedAttempts, is_resumed
from floe_dagster.definitions.resources import CatalogResource, DbtResource, StorageResource
from floe_dagster.execution.context import RunContext, RunIdentity, RunOptions, Selection
from floe_dagster.execution.dbt_process import DbtProgram
from floe_dagster.execution.results import Built, CarriedOver, Checked, Published, Result
from floe_dagster.execution.run import ProductRun
from floe_dagster.home import FloeHome
from floe_dagster.observability.audit_log import AuditLog, AuditRecord, launched_by, of_table
from floe_dagster.schemas.product_index import ProductIndex

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class RunResources:
    """What the resources of a product give to its run.

    Args:
        dbt: Says which dbt runs.
        catalog: Where tables are registered.
        storage: Where their files lie.
    """

    dbt: DbtResource
    catalog: CatalogResource
    storage: StorageResource


@dataclass(frozen=True, slots=True)
class ProductStep:
    """Runs one product as a step of Dagster.

    Args:
        bundle: What was compiled; its sources run.
        index: Of the bundle.
        specs: Asset specs by dbt's unique id.
        checks: Check specs by dbt's unique id.
        home: The writable folder.
    """

    bundle: Bundle
    index: ProductIndex
    specs: Mapping[str, dg.AssetSpec]
    checks: Mapping[str, dg.AssetCheckSpec]
    home: FloeHome

    def events(
        self,
        context: dg.AssetExecutionContext,
        options: RunOptions,
        resources: RunResources,
        observed: Observed,
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        """Yield materializations of what was published and results of what was checked.

        Args:
            context: Of the step.
            options: What a person asked of the run.
            resources: Of the product.
            observed: Who is told of it.

        Raises:
            dg.Failure: A model or an error test failed, a table cannot be published, or the program is at fault (not
                retried); the catalog or the engine is not to be had (retried).
        """
        slug = self.index.product.slug
        step = ObservedStep(observed, context)
        observer = ObservedBuild(
            step, self.index, self.bundle.report().get("policies", {}).get("results", {})
        )
        recorded = RecordedAttempts(context, self.specs, self.checks)
        run_context = RunContext(
            identity=RunIdentity(
                run_id=context.run.run_id,
                group=context.run.root_run_id or context.run.run_id,
                is_resumed=is_resumed(context),
                properties=step.run.identity(),
            ),
            selection=self._selection(context),
            options=options,
            dbt=DbtProgram(resources.dbt.dbt_executable, tuple(resources.dbt.global_config_flags)),
            open_catalog=partial(resources.catalog.open, resources.storage, self.home),
            earlier=recorded,
            observer=observer,
            log=context.log,
        )
        begun = AuditRecord(
            "run",
            slug,
            digest=self.bundle.digest,
            run_id=context.run.run_id,
            launched_by=launched_by(context.run.tags),
            details=self._asked(run_context),
        )
        audit = AuditLog(self.home, self.index.product.audited)
        with (
            step.observing(),
            as_failures(f"the run of {slug} could not go on"),
            audit.action(begun) as ended,
        ):
            run = ProductRun(run_context, self.bundle, self.index, self.home)
            published = ended.setdefault("published", [])
            try:
                with closing(run.execute()) as results:
                    for result in results:
                        if isinstance(result, Published):
                            audit.add(_publication(result, begun))
                            published.append(result.publication.table)
                        if isinstance(result, Checked) and result.test not in run_context.selection.tests:
                            # A test of something else that was asked for, too: it is told, though no output waits for it.
                            context.log_event(evaluation(self._check_result(result, observer)))
                        else:
                            yield self._event(result, observer, recorded)
            finally:
                report_columns(context, slug, run.columns)

    def _asked(self, context: RunContext) -> dict[str, Any]:
        """Return what was asked of the run, for the audit log; a selection of everything is not spelled out."""
        chosen = context.selection.assets
        names = sorted(asset.name for asset in self.index.assets if asset.id in chosen)
        return {
            **({"assets": names} if len(names) < len(self.index.assets) else {}),
            **({"full_refresh": True} if context.options.full_refresh else {}),
        }

    def _selection(self, context: dg.AssetExecutionContext) -> Selection:
        assets, checks = context.selected_asset_keys, context.selected_asset_check_keys
        return Selection(
            frozenset(key for key, spec in self.specs.items() if spec.key in assets),
            frozenset(key for key, spec in self.checks.items() if spec.key in checks),
            # A step that waits for one of these outputs would be skipped without it.
            repeats_carried_over=len(context.job_def.graph.nodes) > 1,
        )

    def _event(
        self, result: Result, observer: ObservedBuild, recorded: RecordedAttempts
    ) -> dg.MaterializeResult[Any] | dg.AssetCheckResult:
        slug = self.index.product.slug
        if isinstance(result, Built):
            asset = observer.assets[result.asset]
            return materialization(result, asset, slug, observer.links(asset))
        if isinstance(result, CarriedOver):
            return carried_over(result, observer.assets[result.asset], slug)
        if isinstance(result, Checked):
            return self._check_result(result, observer)
        return recorded.check_result(result.test)

    def _check_result(self, result: Checked, observer: ObservedBuild) -> dg.AssetCheckResult:
        return check_result(result, self.checks[result.test], observer.tests[result.test])


def _publication(result: Published, run: AuditRecord) -> AuditRecord:
    """Return the record of one table that a run has published."""
    done = result.publication
    details = {"snapshot_id": str(done.snapshot_id), "rows": done.rows, "write_mode": done.mode}
    return replace(of_table(run, done.table, "succeeded", details), action="publish")
