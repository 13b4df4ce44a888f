"""One run of a product: write with dbt, audit, publish to Iceberg, only then record; one engine after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.definitions.audit import Audit, audit, in_order
from floe_dagster.definitions.dbt_build import DbtBuild, RunOptions
from floe_dagster.definitions.garbage import standing_objects_left_alone
from floe_dagster.definitions.observing.build import ObservedBuild
from floe_dagster.definitions.observing.process import Observed
from floe_dagster.definitions.observing.step import ObservedStep
from floe_dagster.definitions.phases import Phase, plan_phases
from floe_dagster.definitions.progress import ProgressLog
from floe_dagster.definitions.publications import Publications, in_graph_order, publication_request
from floe_dagster.definitions.resources import CatalogResource, StorageResource
from floe_dagster.definitions.resume import Earlier, earlier_attempts, is_resumed, recorded_checks, run_mark
from floe_dagster.definitions.run_metadata import check_result, publication_metadata
from floe_dagster.definitions.withheld import Withheld
from floe_dagster.definitions.workspaces import open_workspace
from floe_dagster.definitions.workspaces.base import BuiltRelations, PublicationRequest, Publisher, Workspace
from floe_dagster.faults import fault_report, is_fault, presentable
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
        self.engines = {
            engine: self._engine(engine)
            for engine in sorted({self.assets[key]["engine"] for key in self.wanted})
        }
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
                    self.assets,
                    self._asked_tests(earlier),
                    wanted=wanted,
                    done=set(earlier.snapshots),
                    repeated=self._tests_to_repeat(earlier),
                )
                yield from self._carried_over(catalog, earlier)
                for phase in phases:
                    yield from self._run_phase(catalog, phase)
                if failure := self.withheld.failure():
                    raise failure
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
        wanted = self.withheld.from_now_on(phase.wanted)
        tests = {
            key for key in phase.tests if self.withheld.reasons.keys().isdisjoint(self.tests[key]["reads"])
        }
        if not wanted and not tests:
            return
        if len({asset["engine"] for asset in self.assets.values()}) > 1:
            names = sorted(self.assets[key]["name"] for key in wanted)
            self.context.log.info(f"building on {phase.engine}: {', '.join(names) or 'tests alone'}")
        read = {key for test in tests for key in self.tests[test]["reads"]} - wanted
        to_build = engine.workspace.prepare(catalog, wanted, read, full_refresh=self.options.full_refresh)
        results = engine.build.run(self._selection(to_build, tests), self.seen.dbt_event)
        outcome = audit(self.index, results, to_build, engine.workspace.explain)
        self.seen.audited(outcome)
        yield from self._publish(catalog, engine.workspace, outcome, wanted)

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
        selected = self.context.selected_asset_check_keys
        asked = {
            key: spec
            for key, spec in self.checks.items()
            if spec.key in selected and self.tests[key]["asset"] in earlier.snapshots
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

    def _tests_to_repeat(self, earlier: Earlier) -> set[str]:
        selected = self.context.selected_asset_check_keys
        return {
            key
            for key, spec in self.checks.items()
            if spec.key in selected
            and self.tests[key]["asset"] in earlier.snapshots
            and key not in earlier.checks
        }

    def _asked_tests(self, earlier: Earlier) -> dict[str, Mapping[str, Any]]:
        selected = self.context.selected_asset_check_keys
        return {
            key: self.tests[key]
            for key, spec in self.checks.items()
            if spec.key in selected and key not in earlier.checks
        }

    def _selection(self, to_build: set[str], tests: set[str]) -> list[str]:
        if len(to_build) == len(self.assets):
            return []
        names = [f"fqn:{asset['fqn']}" for key, asset in self.assets.items() if key in to_build]
        names += [f"fqn:{key.split('.')[2]}" for key in sorted(tests)]
        # Tests that read a model outside of the selection would judge what this run does not change.
        # An argument each: a single one may not exceed 128 KiB.
        return ["--indirect-selection", "cautious", "--select", *names]

    def _carried_over(self, catalog: Any, earlier: Earlier) -> Iterator[Any]:
        # A step that waits for one of these outputs would be skipped without it.
        repeat = len(self.context.job_def.graph.nodes) > 1
        for key, snapshot in earlier.snapshots.items():
            if key in earlier.recorded and not repeat:
                continue
            table = catalog.load_table((self.slug, self.assets[key]["name"]))
            yield dg.MaterializeResult(
                asset_key=self.specs[key].key,
                data_version=dg.DataVersion(str(snapshot)),
                metadata={
                    "dagster/table_name": f"{self.slug}.{self.assets[key]['name']}",
                    "dagster/uri": table.location(),
                    "iceberg/snapshot_id": str(snapshot),
                },
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
            Publications(relations.publisher, self._publish_one) as publications,
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
                metadata = relations.describe(asset, outcome.built[key])
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
        selected = self.context.selected_asset_check_keys
        results: dict[str, list[dg.AssetCheckResult]] = {}
        for key, result in outcome.tests.items():
            spec, check = self.checks[key], self.tests[key]
            if spec.key in selected and result["status"] != "skipped":
                results.setdefault(check["asset"], []).append(check_result(spec, check, result))
        return results

    def _publish_one(self, publisher: Publisher, asset: Mapping[str, Any]) -> PublicationResult:
        with self.seen.publishing(asset) as seen:
            result = publisher.publish(self._request(asset))
            seen.append(result)
        return result

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
