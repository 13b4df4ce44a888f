"""What has to be published, by the rules alone; see "What is published, and when" in docs/publication.md.

It knows nothing of how a run goes: neither of files, records and snapshots, nor of phases and audits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from tests.graphs.dbt_rules import BUILT, FAILED, PASSED, SKIPPED, TEST_FAILED, WARNED, statuses
from tests.graphs.story import SOURCES, STATEFUL, Node, Step, Story, Test

Row = tuple[str, int]
Rows = tuple[Row, ...]


@dataclass
class Expected:
    """What has to come of one run.

    Args:
        built: Names of the assets that dbt has to be asked for, no others.
        tests: Names of the tests that have to run.
        results: dbt's status by name.
        publishes: Rows by name of the tables that are published.
        withheld: By name of what is withheld: how the reason may begin.
        passed: Rows by name of all that was built and has passed every test.
    """

    built: set[str]
    tests: set[str]
    results: dict[str, str] = field(default_factory=dict)
    publishes: dict[str, Rows] = field(default_factory=dict)
    withheld: dict[str, list[str]] = field(default_factory=dict)
    passed: dict[str, Rows] = field(default_factory=dict)


class Oracle:
    """Follows one story.

    Args:
        story: Its nodes and tests.
        shown: With which asset the result of a test is shown: a run that is asked for one is asked for the other.
    """

    def __init__(self, story: Story, shown: Mapping[str, str]) -> None:
        self.story = story
        self.shown = shown
        self.published: dict[str, Rows] = {}
        """What readers see."""
        self.stands: dict[str, Rows] = {}
        """What was built, has passed, and may be read by a later run."""
        self.kept: dict[str, Rows] = {}
        """Of what is stateful and not published: the rows that last passed."""
        self.in_file: set[str] = set()
        self.by_group: set[str] = set()
        """What the runs that continue each other have published."""
        self.recorded: set[str] = set()
        """Tests whose result one of them has recorded."""

    def begin(self, step: Step) -> None:
        """Take that a run begins."""
        if not step.retry:
            self.by_group, self.recorded = set(), set()
        if step.file_is_lost:
            self.stands, self.kept, self.in_file = {}, {}, set()

    def asked(self, step: Step) -> set[str]:
        """Return the names of the assets that a run is asked for."""
        return set(step.assets or [node.name for node in self.story.assets])

    def asked_tests(self, step: Step) -> set[str]:
        """Return the names of the tests that a run is asked for: those that are shown with its assets."""
        return {name for name, asset in self.shown.items() if asset in self.asked(step)}

    def wanted(self, step: Step) -> set[str]:
        """Return what a run has to build of what it is asked for: a retry leaves alone what is published."""
        asked, tests = self.asked(step), self.asked_tests(step)
        left_alone = asked & self.by_group
        for test in self._named(set(tests) - self.recorded):
            # Its result was never recorded, so it is repeated: alone where the relation is there, else with its table.
            left_alone -= {self.shown[test.name]} - self.in_file
        return asked - left_alone

    def fails(self, step: Step) -> set[str]:
        """Return what fails: a test that is repeated for what is published already finds in it what it has found before."""
        wanted = self.wanted(step)
        again = {t.name for t in self.story.tests if step.retry and wanted.isdisjoint(self.judged(t))}
        return set(step.fails) - again

    def run(self, step: Step, number: int) -> Expected:
        """Return what has to come of a run that is not killed.

        Args:
            step: The run.
            number: The rows of the sources are 1 to this number, and are seen now.
        """
        wanted, tests, fails = self.wanted(step), self.asked_tests(step), self.fails(step)
        needed = {
            test.name
            for test in self.story.tests
            if not wanted.isdisjoint(self.judged(test))
            or (
                # Asked for, without a result, and of what is published already.
                test.name in tests - self.recorded and self.shown[test.name] in self.by_group
            )
        }
        # What is read and not there is built and tested first.
        besides = self._not_there(wanted, ())
        needed |= {t.name for t in self.story.tests if not t.warns and not besides.isdisjoint(self.judged(t))}
        read = self.story.through(name for test in self._named(needed) for name in test.reads)
        built = wanted | self._not_there(wanted, read - wanted)
        also = {
            test.name
            for test in self.story.tests
            if not (built - wanted).isdisjoint(self.judged(test)) and self.story.through(test.reads) <= built
        }
        expected = Expected(built, needed | also)
        expected.results = statuses(self.story, built | needed | also, fails, step.silent)
        expected.withheld = self._withheld(expected.results, built, needed)
        rows = dict(self.stands)
        for node in self.story.assets:
            if expected.results.get(node.name) == BUILT:
                rows[node.name] = self._rows(node, rows, number, full_refresh=step.full_refresh)
                if node.name not in expected.withheld:
                    expected.passed[node.name] = rows[node.name]
        expected.publishes = {
            name: mine
            for name, mine in expected.passed.items()
            if name in wanted and self.story.by_name[name].is_published
        }
        return expected

    def settle(
        self,
        expected: Expected,
        published: Collection[str],
        recorded: Collection[str],
        *,
        killed_in_dbt: bool = False,
    ) -> None:
        """Take what came of a run.

        Args:
            expected: From `run`.
            published: Names of the tables that it has published, as far as it came.
            recorded: Names of the tests whose result it has recorded.
            killed_in_dbt: Whether it ended before anybody has looked at what was built.
        """
        self.by_group |= set(published)
        self.recorded |= set(recorded)
        self.in_file |= expected.built
        for name in published:
            self.published[name] = expected.publishes[name]
        # A view shows other rows now: what has passed was another.
        for name in expected.built | self._views_of(expected.built):
            self.stands.pop(name, None)
        if killed_in_dbt:
            return
        for name, rows in expected.passed.items():
            judges = [t for t in self.story.tests if not t.warns and name in self.judged(t)]
            if all(expected.results.get(test.name) == PASSED for test in judges):
                self.stands[name] = rows
                if not self.story.by_name[name].is_published:
                    self.kept[name] = rows

    def judged(self, test: Test) -> list[str]:
        """Return the names of what a test withholds."""
        subjects = test.reads if test.kind == "singular" else test.reads[:1]
        nodes = self.story.by_name
        assets = [name for name in subjects if name in nodes and nodes[name].kind != "ephemeral"]
        # Of a source and of an ephemeral model: what reads it, through other ephemeral models too.
        others = set(subjects) - set(assets)
        readers = [node.name for node in self.story.assets if not others.isdisjoint(self._inlined(node))]
        found = list(dict.fromkeys([*assets, *readers]))
        return [name for name in found if name in test.withholds] if test.withholds else found

    def _inlined(self, node: Node) -> set[str]:
        """Return what a node reads, and what the ephemeral models among that read."""
        found = set(node.reads)
        for name in node.reads:
            if name in self.story.by_name and self.story.by_name[name].kind == "ephemeral":
                found |= self._inlined(self.story.by_name[name])
        return found

    def _named(self, names: Collection[str]) -> list[Test]:
        return [test for test in self.story.tests if test.name in names]

    def _is_restored(self, node: Node) -> bool:
        return node.is_stateful and node.name in self.published

    def _not_there(self, wanted: set[str], read: Iterable[str]) -> set[str]:
        """Return what has to be built so that `wanted` can be built and `read` can be read."""
        found: set[str] = set()
        while True:
            # A view over what is built now shows rows that have not passed its tests.
            changed = self._views_of(wanted | found)
            more: set[str] = set()
            pending = [*read, *(up for name in wanted for up in self.story.reads(name))]
            while pending:
                name = pending.pop()
                stands = name in self.stands and name not in changed
                if stands or name in wanted | more or self._is_restored(self.story.by_name[name]):
                    continue
                more.add(name)
                pending += self.story.reads(name)
            if more <= found:
                return found
            found |= more

    def _withheld(
        self, results: Mapping[str, str], built: set[str], needed: set[str]
    ) -> dict[str, list[str]]:
        """Return what is withheld, with the beginnings that its reason may have."""
        why: dict[str, list[str]] = {name: [] for name in built}
        for name in built:
            if results.get(name) == FAILED:
                why[name].append("dbt: error: ")
        for test in self.story.tests:
            shown = f"{'unit test' if test.kind == 'unit' else 'test'} {test.name}"
            for name in built.intersection(self.judged(test)):
                if results.get(test.name) == TEST_FAILED:
                    why[name].append(f"{shown} failed: ")
        withheld: set[str] = set()
        for pass_ in ("with what it reads", "without a result"):
            if pass_ == "without a result":
                for test in self._named(needed):
                    has_result = results.get(test.name) in (PASSED, TEST_FAILED, WARNED)
                    if test.warns or has_result:
                        continue
                    shown = f"{'unit test' if test.kind == 'unit' else 'test'} {test.name}"
                    for name in built.intersection(self.judged(test)) - withheld:
                        why[name].append(f"{shown} has no result: ")
            withheld |= {name for name, reasons in why.items() if reasons}
            for node in self.story.assets:
                if through := sorted(self.story.reads(node.name) & withheld):
                    withheld.add(node.name)
                    if node.name in built and not why[node.name]:
                        why[node.name] = [f"it reads {name}, which was withheld" for name in through]
        for name in built:
            if results.get(name) == SKIPPED and not why[name]:
                why[name].append("dbt skipped it")
        return {name: reasons for name, reasons in why.items() if reasons}

    def _rows(self, node: Node, rows: Mapping[str, Rows], number: int, *, full_refresh: bool) -> Rows:
        """Return what a relation holds once it is built."""
        read = self._selected(node, rows, number)
        if node.kind not in STATEFUL:
            return read
        base = self._base(node)
        if node.kind == "snapshot":
            return _with_history(base, read)
        if full_refresh:
            base = ()
        known = {key for key, _seen in base}
        return (*base, *(row for row in read if row[0] not in known))

    def _base(self, node: Node) -> Rows:
        """Return from where a stateful relation goes on: what is published, else the rows that last passed."""
        if not node.is_published:
            return self.kept.get(node.name, ())
        return self.published.get(node.name, self.stands.get(node.name, ()))

    def _selected(self, node: Node, rows: Mapping[str, Rows], number: int) -> Rows:
        """Return what the query of a node finds."""
        if node.kind == "seed":
            return ((node.name, 0),)
        found: list[Row] = []
        for name in node.reads:
            found += [(f"{node.name}<{key}", seen) for key, seen in self._read(name, rows, number)]
        return tuple(found)

    def _read(self, name: str, rows: Mapping[str, Rows], number: int) -> Rows:
        if name in SOURCES:
            return tuple((f"{name}{row}", number) for row in range(1, number + 1))
        node = self.story.by_name[name]
        if node.kind == "ephemeral":
            return self._selected(node, rows, number)
        if node.kind == "view":
            # It shows what it reads, as that is now.
            return self._selected(node, rows, number)
        held = rows[name] if name in rows else self.published[name]
        if node.kind == "snapshot":
            return tuple(sorted({(f"{key}@{seen}", seen) for key, seen in held}))
        return held

    def _views_of(self, names: Collection[str]) -> set[str]:
        """Return the views that show what these hold."""
        found: set[str] = set()
        for node in self.story.assets:
            if node.kind == "view" and not self.story.reads(node.name).isdisjoint({*names, *found}):
                found.add(node.name)
        return found - set(names)


def _with_history(base: Rows, read: Rows) -> Rows:
    """Return a snapshot: what has changed is added, and what was stays."""
    last = dict(base)
    return (*base, *(row for row in read if last.get(row[0]) != row[1]))
