"""Runs a story without Dagster, and holds what is published against the oracle after each step."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.compilation.profiles import duckdb_file
from floe_dagster.execution.context import RunContext, RunIdentity, RunOptions, Selection
from floe_dagster.execution.dbt_process import DbtProgram
from floe_dagster.execution.errors import DbtError, WithheldError
from floe_dagster.execution.results import Checked, Published
from floe_dagster.execution.run import ProductRun
from floe_dagster.home import FloeHome
from tests.graphs.oracle import Expected, Oracle, Row
from tests.graphs.project import step_in_words, write_world
from tests.graphs.stand_in import StandIn
from tests.graphs.story import Step, Story

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyiceberg.catalog import Catalog

LOG = logging.getLogger("tests.graphs")


class KilledError(BaseException):
    """The run ends here, as if its process was killed."""


@dataclass
class Watcher:
    """Is told of a run, and ends it where the step says so.

    Args:
        killed: The number of the node that dbt begins then; None where it is not killed while dbt runs.
    """

    killed: int | None
    begun: int = 0
    results: dict[str, str] = field(default_factory=dict)

    def catalog_opened(self, catalog: Any) -> None:
        """See `Observer`."""

    def dbt_event(self, event: Mapping[str, Any]) -> None:
        """See `Observer`."""
        if event["info"].get("name") == "LogStartLine":
            self.begun += 1
            if self.begun == self.killed:
                raise KilledError

    def audited(self, outcome: Any) -> None:
        """See `Observer`: dbt's results, by unique id."""
        if self.killed is not None:
            raise KilledError
        self.results = {key: str(result["status"]) for key, result in outcome.results.items()}

    @contextmanager
    def publishing(self, asset: Any) -> Iterator[list[Any]]:
        """See `Observer`."""
        yield []

    def done(self, built: Any) -> None:
        """See `Observer`."""

    def refused(self, key: str, reason: str) -> None:
        """See `Observer`."""

    def requests(self, counts: Mapping[str, int]) -> None:
        """See `Observer`."""

    def ended(self, error: BaseException | None) -> None:
        """See `Observer`."""


@dataclass
class Earlier:
    """What the attempts of a run have recorded: all that somebody has taken from them."""

    tables: set[str] = field(default_factory=set)
    tests: set[str] = field(default_factory=set)

    def recorded(self, snapshots: Mapping[str, int]) -> set[str]:
        """See `EarlierAttempts`."""
        return self.tables & snapshots.keys()

    def checked(self, tests: Collection[str]) -> set[str]:
        """See `EarlierAttempts`."""
        return self.tests & set(tests)


@dataclass
class Outcome:
    """What came of a run.

    Args:
        reasons: Why tables were withheld, by name; None where the run was killed.
        problem: What else it failed for.
        results: dbt's statuses by name.
    """

    reasons: dict[str, str] | None
    problem: str = ""
    results: dict[str, str] = field(default_factory=dict)


class Driver:
    """Runs one story.

    Args:
        story: That is told.
        bundle: What was compiled of it.
        home: The writable folder.
        catalog: Where its tables are registered.
        dbt: Which is started.
    """

    def __init__(
        self, story: Story, bundle: Bundle, home: FloeHome, catalog: Catalog, dbt: DbtProgram
    ) -> None:
        self.story, self.bundle, self.home, self.catalog, self.dbt = story, bundle, home, catalog, dbt
        self.index = bundle.index()
        self.file = duckdb_file(bundle.artifact().dbt_profiles, "shop", home)
        self.ids = {asset.name: asset.id for asset in self.index.assets}
        self.ids |= {check.name: check.id for check in self.index.checks}
        self.names = {key: name for name, key in self.ids.items()}
        shown = {check.name: self.names[check.asset] for check in self.index.checks}
        assert {test.name for test in story.tests} == shown.keys()
        self.oracle = Oracle(story, shown)
        self.earlier = Earlier()
        self.group = ""
        self.told: list[str] = []
        self.read: dict[str, Counter[Row]] = {}

    def tell(self) -> None:
        """Run every step of the story.

        Raises:
            AssertionError: Something else is published, withheld, built or said than the rules say.
        """
        for number, step in enumerate(self.story.steps, 1):
            self.told.append(step_in_words(number, step))
            self._step(number, step)

    def _step(self, number: int, step: Step) -> None:
        if step.file_is_lost and self.file.parent.exists():
            shutil.rmtree(self.file.parent)
        self.oracle.begin(step)
        if not step.retry or not self.group:
            self.group, self.earlier = f"run-{number}", Earlier()
        fails = self.oracle.fails(step)
        expected = self.oracle.run(step, number)
        write_world(self.file, number, fails)
        before = dict(self.oracle.published)
        outcome = self._run(f"run-{number}", step, fails)
        killed_in_dbt = step.killed is not None and bool(expected.results)
        if killed_in_dbt:
            assert outcome.reasons is None, self._said("it was to be killed")
            published: set[str] = set()
        else:
            published = self._published(expected, before, whole=outcome.reasons is not None)
        if outcome.reasons is not None:
            self._compare(expected, outcome, step)
        self.oracle.settle(
            expected, published, {self.names[key] for key in self.earlier.tests}, killed_in_dbt=killed_in_dbt
        )
        held = {name: self.rows(name) for name in self.ids if name in self.story.by_name}
        wanted = {name: Counter(self.oracle.published.get(name, ())) for name in held}
        assert held == wanted, self._said("what is published")

    def _run(self, run_id: str, step: Step, fails: set[str]) -> Outcome:
        watcher = Watcher(step.killed)
        if isinstance(self.dbt.start, StandIn):
            self.dbt.start.step, self.dbt.start.fails = step, frozenset(fails)
        tests = self.oracle.asked_tests(step)
        context = RunContext(
            identity=RunIdentity(run_id, self.group, is_resumed=step.retry),
            selection=Selection(
                frozenset(self.ids[name] for name in self.oracle.asked(step)),
                frozenset(self.ids[name] for name in tests),
            ),
            options=RunOptions(full_refresh=step.full_refresh),
            dbt=self.dbt,
            open_catalog=lambda: self.catalog,
            earlier=self.earlier,
            observer=watcher,
            log=LOG,
        )
        published = 0
        outcome = Outcome({})
        try:
            with closing(ProductRun(context, self.bundle, self.index, self.home).execute()) as results:
                for result in results:
                    if isinstance(result, Checked):
                        self.earlier.tests.add(result.test)
                    if isinstance(result, Published):
                        self.earlier.tables.add(result.asset)
                        published += 1
                        if published == step.killed_after:
                            outcome = Outcome(None)
                            break
        except WithheldError as error:
            outcome = Outcome(error.reasons)
        except DbtError as error:
            outcome = Outcome({}, str(error))
        except KilledError:
            outcome = Outcome(None)
        outcome.results = {self.names[key]: status for key, status in watcher.results.items()}
        return outcome

    def _published(
        self, expected: Expected, before: Mapping[str, tuple[Row, ...]], *, whole: bool
    ) -> set[str]:
        """Return the names of what the run has published; all that it had to, unless it was killed while it published."""
        if whole:
            return set(expected.publishes)
        found = {
            name
            for name, rows in expected.publishes.items()
            if self.rows(name) == Counter(rows) and self._is_of_group(name)
        }
        for name in found:
            above = self.story.ancestors([name]) & expected.publishes.keys()
            assert above <= found, self._said(f"{name} is published before what it reads")
        return found

    def _is_of_group(self, name: str) -> bool:
        snapshot = self.catalog.load_table(("shop", name)).current_snapshot()
        return snapshot is not None and snapshot.summary["floe.run-group"] == self.group

    def _compare(self, expected: Expected, outcome: Outcome, step: Step) -> None:
        assert outcome.reasons is not None
        if outcome.problem:
            # A test without a result that no table waits for fails the run, too.
            assert step.silent and "did not execute" in outcome.problem, self._said(outcome.problem)
        results = {name: status for name, status in outcome.results.items() if name in expected.results}
        assert results == expected.results, self._said("what dbt was asked for, and what it said")
        built = {name for name in outcome.results if name in self.story.by_name}
        assert built == {name for name in expected.results if name in self.story.by_name}, self._said("built")
        wrong = {
            name: (reason, expected.withheld.get(name))
            for name, reason in outcome.reasons.items()
            if not reason.startswith(tuple(expected.withheld.get(name, ["?"])))
        }
        assert not wrong, self._said(f"the reasons, and how they may begin: {wrong}")
        assert outcome.reasons.keys() == expected.withheld.keys(), self._said("what is withheld")

    def rows(self, name: str) -> Counter[Row]:
        """Return the rows of a table, with how often each is there."""
        try:
            table = self.catalog.load_table(("shop", name))
        except (NoSuchTableError, NoSuchNamespaceError):
            return Counter()
        # One state of a table has the same rows for ever.
        if table.metadata_location not in self.read:
            found = table.scan(selected_fields=("key", "seen")).to_arrow()
            rows = zip(found["key"].to_pylist(), found["seen"].to_pylist(), strict=True)
            self.read[table.metadata_location] = Counter(rows)
        return self.read[table.metadata_location]

    def _said(self, what: str) -> str:
        nodes = "\n".join(map(str, (*self.story.nodes, *self.story.tests)))
        return f"{what}\n{nodes}\n" + "\n".join(self.told)
