"""One run of a product: write with dbt, audit, publish to Iceberg, only then record; one engine after the other."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.definitions.audit import SKIPPED, Audit, audit, in_order
from floe_dagster.definitions.dbt_build import DbtBuild, RunOptions
from floe_dagster.definitions.garbage import standing_objects_left_alone
from floe_dagster.definitions.observing.build import ObservedBuild
from floe_dagster.definitions.observing.process import Observed
from floe_dagster.definitions.observing.step import ObservedStep
from floe_dagster.definitions.phases import Phase, plan_phases, withheld_by
from floe_dagster.definitions.progress import ProgressLog
from floe_dagster.definitions.publications import Publications, in_graph_order, publication_request
from floe_dagster.definitions.resources import CatalogResource, StorageResource
from floe_dagster.definitions.resume import Earlier, earlier_attempts, is_resumed, recorded_checks, run_mark
from floe_dagster.definitions.run_metadata import (
    carried_over_metadata,
    check_result,
    publication_metadata,
)
from floe_dagster.definitions.withheld import Withheld
from floe_dagster.definitions.workspaces import open_workspace
from floe_dagster.definitions.workspaces.base import BuiltRelations, PublicationRequest, Publisher, Workspace
from floe_dagster.faults import fault_message, fault_report, is_fault, presentable
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import request_counts
from floe_dagster.iceberg.errors import (
    CatalogError,
    NotUsableError,
    PublicationError,
    catalog_error,
    is_remote_failure,
)
from floe_dagster.iceberg.publication import PublicationResult

GIVE_UP_AFTER = 3
"""So many tables that the catalog or the storage does not take mean that it is away altogether."""


@dataclass(frozen=True, slots=True)
class EngineOfRun:
    """One engine in one run.

    Args:
        workspace: Where it builds.
        build: dbt with its adapter.
    """

    workspace: Workspace
    build: DbtBuild


class ProductRun:
    """Executes the selected assets and checks of one product in one step.

    Args:
        context: Of the step.
        bundle: What was compiled; its sources run.
        index: The bundle's asset index.
        specs: Asset specs by dbt's unique id.
        checks: Check specs by dbt's unique id.
        home: The writable folder.
        dbt: Says which dbt executable runs.
        options: What a person asked of the run.
        catalog: Where tables are registered.
        storage: Where their files lie.
        observed: Who is told of it.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        bundle: Bundle,
        index: Mapping[str, Any],
        specs: Mapping[str, dg.AssetSpec],
        checks: Mapping[str, dg.AssetCheckSpec],
        home: FloeHome,
        dbt: DbtCliResource,
        options: RunOptions,
        catalog: CatalogResource,
        storage: StorageResource,
        observed: Observed,
    ) -> None:
        self.context = context
        self.bundle = bundle
        self.index = index
        self.artifact = bundle.artifact()
        self.assets = {asset["id"]: asset for asset in in_order(index)}
        self.tests = {check["id"]: check for check in index["checks"]}
        self.specs = specs
        self.checks = checks
        self.home = home
        self.options = options
        self.slug = index["product"]["slug"]
        self.dbt = dbt
        self.wanted = {key for key, spec in specs.items() if spec.key in context.selected_asset_keys}
        self.asked_tests = {
            key for key, spec in checks.items() if spec.key in context.selected_asset_check_keys
        }
        touched = self.wanted | {self.tests[key]["asset"] for key in self.asked_tests}
        self.engines = {
            engine: self._engine(engine) for engine in sorted({self.assets[key]["engine"] for key in touched})
        }
        self.built: set[str] = set()
        self.failed_hooks: list[str] = []
        self.withheld = Withheld(self.assets)
        self.mark = run_mark(context, bundle.digest)
        self.progress = ProgressLog(context.log)
        self.catalog = catalog
        self.storage = storage
        self.step = ObservedStep(observed, context)
        self.seen = ObservedBuild(self.step, index, _policies(bundle), self._location_of)
        self.opened: Any = None

    def _engine(self, engine: str) -> EngineOfRun:
        workspace = open_workspace(
            self.slug,
            self.artifact,
            self.bundle,
            self.assets,
            self.home,
            self.context.log,
            engine=engine,
            run_id=self.context.run.run_id,
        )
        apart = engine if engine != self.artifact.default_engine else None
        build = DbtBuild(self.context, self.bundle, self.home, self.dbt, self.options, workspace, apart)
        return EngineOfRun(workspace, build)

    def execute(self) -> Iterator[Any]:
        """Yield materializations of what was published and results of what was checked.

        Raises:
            dg.Failure: A model or an error test failed, a table cannot be published, or the program is at fault (not
                retried); the catalog or the engine is not to be had (retried).
        """
        with standing_objects_left_alone(), self.step.observing():
            error: BaseException | None = None
            try:
                yield from self._execute()
            except BaseException as raised:
                error = raised
                raise
            finally:
                self.seen.ended(error)

    def _execute(self) -> Iterator[Any]:
        wanted = set(self.wanted)
        try:
            catalog = self.opened = self.catalog.open(self.storage, self.home)
            with ExitStack() as writing:
                for engine in self.engines.values():
                    writing.enter_context(engine.workspace.writing(catalog))
                earlier = self._earlier(catalog, wanted)
                wanted -= earlier.snapshots.keys()
                phases = plan_phases(
                    self.assets, self.tests, wanted=wanted, alone=self._tests_alone(wanted, earlier)
                )
                rerun = {key for phase in phases for key in phase.tests}
                earlier.checks = {key: found for key, found in earlier.checks.items() if key not in rerun}
                yield from self._carried_over(catalog, earlier)
                for phase in phases:
                    yield from self._run_phase(catalog, phase)
                if failure := self.withheld.failure():
                    raise failure
                if self.failed_hooks:
                    raise dg.Failure("hooks failed:\n" + "\n".join(self.failed_hooks), allow_retries=False)
        except CatalogError as error:
            # The message says all; a traceback of a library would hide it.
            raise dg.Failure(str(error), allow_retries=not isinstance(error, NotUsableError)) from error
        except Exception as error:
            for engine in self.engines.values():
                if failure := engine.workspace.failure(error):
                    raise failure from error
            if is_remote_failure(error):
                told = catalog_error(error, f"the tables of {self.slug} cannot be looked at")
                raise dg.Failure(str(told), allow_retries=not isinstance(told, NotUsableError)) from error
            if is_fault(error):
                message = fault_report(error, f"the run of {self.slug} could not go on")
                raise dg.Failure(message, allow_retries=False) from presentable(error)
            raise
        finally:
            self._count_requests()

    def _run_phase(self, catalog: Any, phase: Phase) -> Iterator[Any]:
        engine = self.engines[phase.engine]
        self.withheld.add(self._unreadable(catalog, phase), phase.wanted)
        wanted, tests = self._runnable(catalog, phase)
        if not wanted and not tests:
            return
        if len({asset["engine"] for asset in self.assets.values()}) > 1:
            names = sorted(self.assets[key]["name"] for key in wanted)
            self.context.log.info(f"building on {phase.engine}: {', '.join(names) or 'tests alone'}")
        read = {key for test in tests for key in self.tests[test]["reads"]} - wanted
        to_build = engine.workspace.prepare(catalog, wanted, read, full_refresh=self.options.full_refresh)
        planned = to_build | tests | self._tests_of_ancestors(to_build - wanted, to_build)
        planned |= set(self.index.get("functions", ()))
        results = engine.build.run(planned, self.seen.dbt_event)
        outcome = audit(
            self.index, results, planned, engine.workspace.explain, needed=tests, before=self.built
        )
        self.seen.audited(outcome)
        if outcome.unplanned:
            engine.workspace.forget(outcome.unplanned)
            raise dg.Failure(
                f"dbt executed what this run had not planned: {', '.join(outcome.unplanned)}. Nothing is published; the next "
                "run begins from what Iceberg holds",
                allow_retries=False,
            )
        self.failed_hooks += [f"- {key.split('.')[-1]}: {said}" for key, said in outcome.hooks.items()]
        self.built |= outcome.built.keys()
        engine.workspace.judged(to_build, outcome.clean)
        yield from self._publish(catalog, engine.workspace, outcome, wanted)

    def _runnable(self, catalog: Any, phase: Phase) -> tuple[set[str], set[str]]:
        """Return the assets and tests of a phase that can run; a table whose test cannot run is withheld."""
        while True:
            wanted = self.withheld.from_now_on(phase.wanted)
            blocked = {key: why for key in phase.tests if (why := self._blocked(catalog, phase, key))}
            reasons = {
                asset: f"test {self.tests[key]['name']} has no result: {why}"
                for key, why in sorted(blocked.items())
                if self.tests[key]["severity"] == "error"
                for asset in withheld_by(self.tests[key])
                if asset in wanted
            }
            if not reasons:
                return wanted, phase.tests - blocked.keys()
            self.withheld.add(reasons, phase.wanted)

    def _blocked(self, catalog: Any, phase: Phase, key: str) -> str | None:
        """Return why a test cannot run in a phase; None where it can."""
        for read in (self.assets[read] for read in self.tests[key]["reads"]):
            if read["id"] in self.withheld.reasons:
                return f"it reads {read['name']}, which was withheld"
            is_foreign = read["engine"] != phase.engine
            if is_foreign and not catalog.table_exists((self.slug, read["name"])):
                return f"it reads {read['name']}, which {read['engine']} has not published yet: run that, too"
        return None

    def _tests_of_ancestors(self, ancestors: set[str], to_build: set[str]) -> set[str]:
        """Return the tests of what is built only because it was missing: those that read nothing beside the build."""
        return {
            key
            for key, test in self.tests.items()
            if not ancestors.isdisjoint(withheld_by(test)) and to_build.issuperset(test["reads"])
        }

    def _unreadable(self, catalog: Any, phase: Phase) -> dict[str, str]:
        """Return which assets read a table that another engine has not published, neither now nor before."""
        found = {}
        for key in phase.wanted:
            for upstream in (self.assets[up] for up in self.assets[key]["deps"]):
                is_expected = (
                    upstream["engine"] != phase.engine and upstream["id"] not in self.withheld.reasons
                )
                if is_expected and not catalog.table_exists((self.slug, upstream["name"])):
                    found[key] = (
                        f"it reads {upstream['name']}, which {upstream['engine']} has not published yet: run that, too"
                    )
        return found

    def _location_of(self, name: str) -> tuple[str, str | None] | None:
        """Return where a table of the product lies, and its snapshot; None where there is none."""
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

        try:
            table = self.opened.load_table((self.slug, name))
        except (NoSuchTableError, NoSuchNamespaceError, OSError):
            return None
        snapshot = table.current_snapshot()
        return table.location(), str(snapshot.snapshot_id) if snapshot else None

    def _count_requests(self) -> None:
        counts = request_counts(self.opened)
        for name, count in counts.items():
            if count:
                attributes = {"product": self.slug} | ({"kind": "catalog"} if name == "retries" else {})
                self.step.observed.telemetry.instruments.add(name, count, **attributes)

    def _earlier(self, catalog: Any, wanted: set[str]) -> Earlier:
        if not is_resumed(self.context):
            return Earlier()
        published = [self.assets[key] for key in wanted if self.assets[key]["published"]]
        earlier = earlier_attempts(self.context, catalog, self.slug, published, self.specs, self.mark)
        asked = {
            key: self.checks[key] for key in self.asked_tests if self.tests[key]["asset"] in earlier.snapshots
        }
        earlier.checks = recorded_checks(self.context, asked)
        # Where a result was never recorded, the test is repeated; where it cannot be repeated alone, with its table.
        unrecorded = {self.tests[key]["asset"] for key in asked.keys() - earlier.checks.keys()}
        for engine, of_run in self.engines.items():
            built = {asset for asset in unrecorded if self.assets[asset]["engine"] == engine}
            for asset in built - of_run.workspace.testable(built):
                del earlier.snapshots[asset]
        earlier.checks = {
            key: result
            for key, result in earlier.checks.items()
            if self.tests[key]["asset"] in earlier.snapshots
        }
        if earlier.snapshots:
            names = sorted(self.assets[key]["name"] for key in earlier.snapshots)
            self.context.log.info(f"published by an earlier attempt, so left alone: {', '.join(names)}")
        return earlier

    def _tests_alone(self, wanted: set[str], earlier: Earlier) -> set[str]:
        """Return the tests that were asked for, have no result yet, and judge nothing that is built now."""
        return {
            key
            for key in self.asked_tests
            if key not in earlier.checks and wanted.isdisjoint(withheld_by(self.tests[key]))
        }

    def _carried_over(self, catalog: Any, earlier: Earlier) -> Iterator[Any]:
        # A step that waits for one of these outputs would be skipped without it.
        repeat = len(self.context.job_def.graph.nodes) > 1
        for key, snapshot in earlier.snapshots.items():
            if key in earlier.recorded and not repeat:
                continue
            yield dg.MaterializeResult(
                asset_key=self.specs[key].key,
                data_version=dg.DataVersion(str(snapshot)),
                metadata=carried_over_metadata(
                    catalog.load_table((self.slug, self.assets[key]["name"])),
                    f"{self.slug}.{self.assets[key]['name']}",
                    snapshot,
                ),
            )
        yield from earlier.checks.values()

    def _publish(self, catalog: Any, workspace: Workspace, outcome: Audit, wanted: set[str]) -> Iterator[Any]:
        refused: dict[str, str] = {}
        lost = 0
        forbidden = transient = False
        results = self._check_results(outcome)
        todo = [key for key in self.assets if key in outcome.clean and key in wanted]
        with (
            workspace.built(catalog) as relations,
            self.progress,
            Publications(relations.publisher, partial(self._publish_one, workspace)) as publications,
        ):
            relations.stage(
                [self._request(self.assets[key]) for key in todo if self.assets[key]["published"]]
            )
            for key, published in in_graph_order(publications, self.assets, todo, refused):
                asset = self.assets[key]
                if isinstance(published, PublicationError | CatalogError):
                    refused[key] = str(published)
                    forbidden = forbidden or isinstance(published, NotUsableError)
                    lost += isinstance(published, CatalogError)
                    transient = transient or (isinstance(published, PublicationError) and published.transient)
                    if lost >= GIVE_UP_AFTER:
                        raise published
                    continue
                metadata = self._describe(workspace, relations, asset, outcome.built[key])
                version = None
                if published is not None:
                    self._note_published(relations, asset, published)
                    version = dg.DataVersion(str(published.snapshot_id))
                    metadata |= publication_metadata(published, asset)
                self.seen.done(asset, outcome.built[key], metadata, published)
                metadata |= self.seen.links(asset)
                yield dg.MaterializeResult(
                    asset_key=self.specs[key].key, metadata=metadata, data_version=version
                )
                # Right after its asset: what fails later must not take these results along.
                yield from results.pop(key, ())
        for remaining in results.values():
            yield from remaining
        for key, reason in refused.items():
            self.seen.refused(key, reason)
        self.withheld.add({**outcome.withheld, **refused}, wanted | outcome.built.keys())
        self.withheld.try_again |= (
            (lost > 0 and not forbidden)
            or transient
            or any(workspace.is_transient(reason) for reason in outcome.withheld.values())
        )

    def _check_results(self, outcome: Audit) -> dict[str, list[dg.AssetCheckResult]]:
        """Return the results of the checks that were asked for, by unique id of their asset."""
        results: dict[str, list[dg.AssetCheckResult]] = {}
        for key, result in outcome.tests.items():
            check = self.tests[key]
            if key in self.asked_tests and result["status"] != SKIPPED:
                results.setdefault(check["asset"], []).append(check_result(self.checks[key], check, result))
        return results

    def _publish_one(
        self, workspace: Workspace, publisher: Publisher, asset: Mapping[str, Any]
    ) -> PublicationResult:
        try:
            with self.seen.publishing(asset) as seen:
                result = publisher.publish(self._request(asset))
                seen.append(result)
        except (PublicationError, CatalogError):
            raise
        except Exception as error:
            if self._concerns_all(workspace, error):
                raise
            # What is wrong with one table must not take the others along.
            raise self._refusal(workspace, asset["name"], error) from presentable(error)
        return result

    def _refusal(self, workspace: Workspace, name: str, error: Exception) -> PublicationError:
        """Return why one table is not published, where an engine or a library raised something."""
        if presentable(error) is not None:
            self.context.log.debug("".join(traceback.format_exception(error)))
        said = workspace.said(error)
        if said is None and is_fault(error):
            return PublicationError(fault_message(error, f"{self.slug}.{name} could not be published"))
        return PublicationError(
            f"{name} cannot be published: {said or error}", transient=workspace.is_transient(str(error))
        )

    def _concerns_all(self, workspace: Workspace, error: Exception) -> bool:
        """Tell whether an error is the engine's or the catalog's, not one table's."""
        return workspace.failure(error) is not None or is_remote_failure(error)

    def _describe(
        self,
        workspace: Workspace,
        relations: BuiltRelations,
        asset: Mapping[str, Any],
        result: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return the metadata of a relation; what cannot be described is published all the same."""
        try:
            return relations.describe(asset, result)
        except Exception as error:
            if self._concerns_all(workspace, error):
                raise
            self.context.log.warning(str(self._refusal(workspace, asset["name"], error)))
            return {}

    def _request(self, asset: Mapping[str, Any]) -> PublicationRequest:
        return publication_request(
            asset,
            self.index["product"],
            {
                **self.mark,
                "floe.dagster-run-id": self.context.run.run_id,
                **self.step.run.identity(),
            },
        )

    def _note_published(
        self, relations: BuiltRelations, asset: Mapping[str, Any], result: PublicationResult
    ) -> None:
        relations.published(asset, result)
        changed = (
            "" if result.mode == "overwrite" else f" ({result.mode}: {result.inserted:,} new or changed)"
        )
        self.progress.line(
            f"published {result.table}: {result.rows:,} rows{changed}, snapshot {result.snapshot_id}, "
            f"{result.seconds:.2f} s"
        )


def _policies(bundle: Bundle) -> Mapping[str, Any]:
    results: Mapping[str, Any] = bundle.report().get("policies", {}).get("results", {})
    return results
