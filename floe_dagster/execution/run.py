"""One run of a product: write with dbt, audit, publish to Iceberg, only then yield; one engine after the other."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.execution.audit import TESTED, Audit, audit
from floe_dagster.execution.batches import missing_batches, table_ends
from floe_dagster.execution.built_columns import ColumnReport
from floe_dagster.execution.context import RunContext
from floe_dagster.execution.dbt_build import DbtBuild
from floe_dagster.execution.errors import DbtError, FaultError, RemoteError, RunError
from floe_dagster.execution.garbage import standing_objects_left_alone
from floe_dagster.execution.meanwhile import publication_made_ready
from floe_dagster.execution.phases import Phase, plan_phases
from floe_dagster.execution.publishing import PhasePublication
from floe_dagster.execution.results import CheckedEarlier, Result
from floe_dagster.execution.resume import Earlier, carried_over, published_earlier
from floe_dagster.execution.withheld import Withheld
from floe_dagster.execution.workspaces import open_workspace
from floe_dagster.execution.workspaces.base import Workspace
from floe_dagster.faults import fault_report, is_fault, presentable
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import request_counts
from floe_dagster.iceberg.errors import CatalogError, NotUsableError, catalog_error, is_remote_failure
from floe_dagster.schemas.compute import ENGINES
from floe_dagster.schemas.product_index import ProductIndex

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog


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
    """Builds, checks and publishes what is selected of one product.

    Args:
        context: Who runs, what is asked for, and who is told.
        bundle: What was compiled; its sources run.
        index: Of the bundle.
        home: The writable folder.

    Raises:
        WorkspaceError: This version builds nothing on an engine that is needed.
    """

    def __init__(self, context: RunContext, bundle: Bundle, index: ProductIndex, home: FloeHome) -> None:
        self.context = context
        self.bundle = bundle
        self.index = index
        self.artifact = bundle.artifact()
        self.home = home
        self.slug = index.product.slug
        self.assets = {asset.id: asset for asset in index.in_order()}
        self.tests = index.checks_by_id()
        self.mark = context.identity.mark(bundle.digest)
        self.columns = ColumnReport()
        self.of_run: set[str] = set()
        """Unique ids of what this run builds: what it was asked for, and what it builds besides."""
        self.reported: set[str] = set()
        """Unique ids of the tests whose result was yielded."""
        self.tested: set[str] = set()
        """Unique ids of the tests that this run has executed."""
        self.problems: list[str] = []
        """What went wrong besides what withholds a table."""
        self.withheld = Withheld(self.assets)
        touched = context.selection.assets | {self.tests[key].asset for key in context.selection.tests}
        self.engines = {
            engine: self._engine(engine) for engine in sorted({self.assets[key].engine for key in touched})
        }

    def _engine(self, engine: str) -> EngineOfRun:
        workspace = open_workspace(
            self.slug,
            self.artifact,
            self.bundle,
            self.assets,
            self.home,
            self.context.log,
            engine=engine,
            run_id=self.context.identity.run_id,
        )
        apart = engine if engine != self.artifact.default_engine else None
        return EngineOfRun(workspace, DbtBuild(self.context, self.bundle, self.home, workspace, apart))

    def execute(self) -> Generator[Result, None, None]:
        """Yield what was published, built and checked, each when it is certain.

        Raises:
            WithheldError: A model or an error test failed, or a table cannot be published.
            RunError: The run cannot go on; it says whether another try may help.
            PublicationError: What Iceberg holds cannot be brought back to where dbt goes on with it.
            Exception: What is neither a fault of the program nor said by catalog, storage or engine, as of a full disk.
        """
        with standing_objects_left_alone():
            error: BaseException | None = None
            try:
                yield from self._execute()
            except BaseException as raised:
                error = raised
                raise
            finally:
                self.context.observer.ended(error)

    def _execute(self) -> Iterator[Result]:
        wanted = set(self.context.selection.assets)
        catalog: Catalog | None = None
        # While the catalog is opened and the workspace made ready, dbt can be imported.
        self.context.dbt.warm()
        self.context.dbt.check()
        try:
            catalog = self.context.open_catalog()
            self.context.observer.catalog_opened(catalog)
            with ExitStack() as writing:
                for engine in self.engines.values():
                    writing.enter_context(engine.workspace.writing(catalog))
                earlier = self._earlier(catalog, wanted)
                wanted -= earlier.snapshots.keys()
                self.of_run |= wanted
                phases = plan_phases(
                    self.assets, self.tests, wanted=wanted, alone=self._tests_alone(wanted, earlier)
                )
                earlier.checks -= {key for phase in phases for key in phase.tests}
                yield from self._carried_over(catalog, earlier)
                for phase in phases:
                    yield from self._run_phase(catalog, phase)
                if withheld := self.withheld.failure():
                    for problem in self.problems:
                        self.context.log.error(problem)
                    raise withheld
                if self.problems:
                    raise DbtError("\n".join(self.problems), transient=False)
        except RunError:
            raise
        except CatalogError as error:
            # The message says all; a traceback of a library would hide it.
            raise RemoteError(str(error), transient=not isinstance(error, NotUsableError)) from error
        except Exception as error:
            for engine in self.engines.values():
                if failure := engine.workspace.failure(error):
                    raise failure from error
            if is_remote_failure(error):
                told = catalog_error(error, f"the tables of {self.slug} cannot be looked at")
                raise RemoteError(str(told), transient=not isinstance(told, NotUsableError)) from error
            if is_fault(error):
                message = fault_report(error, f"the run of {self.slug} could not go on")
                raise FaultError(message) from presentable(error)
            raise
        finally:
            self.context.observer.requests(request_counts(catalog))

    def _run_phase(self, catalog: Catalog, phase: Phase) -> Iterator[Result]:
        workspace, full_refresh = self.engines[phase.engine].workspace, self.context.options.full_refresh
        self.withheld.add(self._unreadable(catalog, phase), phase.wanted)
        while True:
            wanted, tests = self._runnable(catalog, phase)
            if not wanted and not tests:
                return
            read = {key for test in tests for key in self.tests[test].reads} - wanted
            prepared = workspace.prepare(catalog, wanted, read, full_refresh=full_refresh)
            if not prepared.refused:
                break
            # One table's trouble: the others are built.
            self.withheld.add(prepared.refused, phase.wanted)
        to_build = prepared.to_build
        if len({asset.engine for asset in self.assets.values()}) > 1:
            names = sorted(self.assets[key].name for key in wanted)
            self.context.log.info(f"building on {phase.engine}: {', '.join(names) or 'tests alone'}")
        self.of_run |= to_build
        planned = to_build | tests | self._tests_within(to_build - wanted, to_build)
        planned |= set(self.index.functions)
        # A full refresh begins with the first batch anyway.
        built = [] if full_refresh else [self.assets[key] for key in to_build]
        ends = table_ends(catalog, self.slug, built)
        with publication_made_ready(ENGINES[phase.engine].dialect):
            results = self.engines[phase.engine].build.run(
                planned, self.context.observer.dbt_event, batches_from=ends
            )
        outcome = audit(self.index, results, planned, workspace.explain, needed=tests, of_run=self.of_run)
        outcome.withhold(missing_batches(ends, outcome.built), self.assets)
        self.context.observer.audited(outcome)
        self._compare(workspace, outcome)
        self.tested |= {key for key, result in outcome.tests.items() if result["status"] in TESTED}
        workspace.judged(to_build, outcome.clean - self._untested(outcome.clean))
        publication = PhasePublication(
            self.context, self.index, self.mark, workspace, outcome, self.reported, self.columns
        )
        yield from publication.results(
            catalog, [key for key in self.assets if key in outcome.clean and key in wanted]
        )
        self.withheld.add({**outcome.withheld, **publication.refused}, wanted | to_build)
        self.withheld.try_again |= publication.try_again or any(
            workspace.is_transient(reason) for reason in outcome.withheld.values()
        )

    def _compare(self, workspace: Workspace, outcome: Audit) -> None:
        """Compare what dbt executed with what was planned.

        Raises:
            DbtError: It executed something else.
        """
        if outcome.unplanned:
            workspace.forget(outcome.unplanned)
            raise DbtError(
                f"dbt executed what this run had not planned: {', '.join(outcome.unplanned)}. Nothing is published; the next "
                "run begins from what Iceberg holds",
                transient=False,
            )
        if outcome.missing:
            self.problems.append(
                f"dbt did not execute what this run had planned: {', '.join(outcome.missing)}. It was compiled, so something "
                "has switched it off in this run"
            )
        if outcome.hooks:
            hooks = (f"- {key.split('.')[-1]}: {said}" for key, said in outcome.hooks.items())
            self.problems.append("\n".join(["hooks failed:", *hooks]))

    def _runnable(self, catalog: Catalog, phase: Phase) -> tuple[set[str], set[str]]:
        """Return the assets and tests of a phase that can run; a table whose test cannot run is withheld.

        The error tests of what is built only because it is missing are among them: what reads it is published.
        """
        while True:
            wanted = self.withheld.from_now_on(phase.wanted)
            missing = self._missing(catalog, phase, wanted)
            tests = phase.tests | {
                key
                for key, test in self.tests.items()
                if test.is_error and not missing.isdisjoint(test.withholds)
            }
            blocked = {key: why for key in tests if (why := self._blocked(catalog, phase, key))}
            reasons = {
                asset: f"test {self.tests[key].name} has no result: {why}"
                for key, why in sorted(blocked.items())
                if self.tests[key].is_error
                for asset in self.tests[key].withholds
                if asset in wanted | missing
            }
            if not reasons:
                return wanted, tests - blocked.keys()
            self.withheld.add(reasons, phase.wanted | missing)

    def _missing(self, catalog: Catalog, phase: Phase, wanted: set[str]) -> set[str]:
        """Return what has to be built besides, since it is read and not there."""
        read = {key for asset in wanted for key in self.assets[asset].deps} - wanted
        if all(self.assets[key].is_foreign(phase.engine) for key in read):
            return set()
        return self.engines[phase.engine].workspace.missing(catalog, wanted)

    def _blocked(self, catalog: Catalog, phase: Phase, key: str) -> str | None:
        """Return why a test cannot run in a phase; None where it can."""
        for read in (self.assets[read] for read in self.tests[key].reads):
            if read.id in self.withheld.reasons:
                return f"it reads {read.name}, which was withheld"
            is_foreign = read.is_foreign(phase.engine)
            if is_foreign and not catalog.table_exists(read.identifier(self.slug)):
                return f"it reads {read.name}, which {read.engine} has not published yet: run that, too"
        return None

    def _tests_within(self, besides: set[str], to_build: set[str]) -> set[str]:
        """Return the tests of what is built besides what was asked for, as far as they read nothing that is not built."""
        return {
            key
            for key, test in self.tests.items()
            if not besides.isdisjoint(test.withholds) and to_build.issuperset(test.reads)
        }

    def _untested(self, keys: Collection[str]) -> set[str]:
        """Return which assets have an error test that this run has not executed: what is built since a test reads it."""
        return {
            asset
            for key, test in self.tests.items()
            if test.is_error and key not in self.tested
            for asset in test.withholds
            if asset in keys
        }

    def _unreadable(self, catalog: Catalog, phase: Phase) -> dict[str, str]:
        """Return which assets read a table that another engine has not published, neither now nor before."""
        found = {}
        for key in phase.wanted:
            for upstream in (self.assets[up] for up in self.assets[key].deps):
                is_expected = upstream.is_foreign(phase.engine) and upstream.id not in self.withheld.reasons
                if is_expected and not catalog.table_exists(upstream.identifier(self.slug)):
                    found[key] = (
                        f"it reads {upstream.name}, which {upstream.engine} has not published yet: run that, too"
                    )
        return found

    def _earlier(self, catalog: Catalog, wanted: set[str]) -> Earlier:
        if not self.context.identity.is_resumed:
            return Earlier()
        published = [self.assets[key] for key in wanted if self.assets[key].published]
        earlier = Earlier(published_earlier(catalog, self.slug, published, self.mark))
        earlier.recorded = self.context.earlier.recorded(earlier.snapshots)
        asked = {key for key in self.context.selection.tests if self.tests[key].asset in earlier.snapshots}
        earlier.checks = self.context.earlier.checked(asked)
        # Where a result was never recorded, the test is repeated; where it cannot be repeated alone, with its table.
        unrecorded = {self.tests[key].asset for key in asked - earlier.checks}
        for engine, of_run in self.engines.items():
            built = {asset for asset in unrecorded if self.assets[asset].engine == engine}
            for asset in built - of_run.workspace.testable(built):
                del earlier.snapshots[asset]
        earlier.checks = {key for key in earlier.checks if self.tests[key].asset in earlier.snapshots}
        if earlier.snapshots:
            names = sorted(self.assets[key].name for key in earlier.snapshots)
            self.context.log.info(f"published by an earlier attempt, so left alone: {', '.join(names)}")
        return earlier

    def _tests_alone(self, wanted: set[str], earlier: Earlier) -> set[str]:
        """Return the tests that were asked for, have no result yet, and judge nothing that is built now."""
        return {
            key
            for key in self.context.selection.tests - earlier.checks
            if wanted.isdisjoint(self.tests[key].withholds)
        }

    def _carried_over(self, catalog: Catalog, earlier: Earlier) -> Iterator[Result]:
        for key, snapshot in earlier.snapshots.items():
            if key not in earlier.recorded or self.context.selection.repeats_carried_over:
                yield carried_over(catalog, self.slug, self.assets[key], snapshot)
        yield from (CheckedEarlier(key) for key in sorted(earlier.checks))
