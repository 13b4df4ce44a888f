"""A small product and what happens to it, as data.

Rows are pairs. The key of a row is the way that it came: `mart<orders<r2` is the row of the second step, in `mart`, by way of
`orders`. `seen` is the step in which a relation took it from the source. So a row that is lost, doubled or taken up in another
run than it should be makes a difference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

SOURCES = ("raw_events", "raw_orders")
STATEFUL = ("append", "merge", "delete+insert", "snapshot")


@dataclass(frozen=True)
class Node:
    """A model, seed or snapshot.

    Args:
        name: Of its relation and its table; that of a version ends with `_v` and a number.
        kind: table, view, ephemeral, seed, snapshot, or the strategy of an incremental model.
        reads: Names of nodes and sources; none of a seed.
        folder: In which its file lies; may be called like other nodes.
        package: shop, or a package of dbt's.
        publish: What `meta.floe.publish` says.
    """

    name: str
    kind: str = "table"
    reads: tuple[str, ...] = ()
    folder: str = ""
    package: str = "shop"
    publish: bool | None = None

    @property
    def version(self) -> int | None:
        """Number of the version of a model; None of all others."""
        _model, cut, number = self.name.rpartition("_v")
        return int(number) if cut else None

    @property
    def model(self) -> str:
        """Its name without the version."""
        return self.name if self.version is None else self.name.rpartition("_v")[0]

    @property
    def is_stateful(self) -> bool:
        """Whether its next content depends on its last one."""
        return self.kind in STATEFUL

    @property
    def is_published(self) -> bool:
        """Whether it becomes a table."""
        return self.kind in ("table", *STATEFUL) if self.publish is None else self.publish

    @property
    def can_fail(self) -> bool:
        """Whether building it can fail: a view is not executed when it is made."""
        return self.kind not in ("view", "ephemeral", "seed")


@dataclass(frozen=True)
class Test:
    """A test.

    Args:
        name: Of the test.
        kind: generic, compared (generic, with a second relation), singular or unit.
        reads: Names of nodes and sources; a generic test is attached to the first, a unit test is one of it.
        warns: Whether its severity is `warn`.
        withholds: What a singular test names in `meta.floe.withholds`.
    """

    __test__ = False

    name: str
    kind: str
    reads: tuple[str, ...]
    warns: bool = False
    withholds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """A run, and what goes wrong in it.

    Args:
        assets: What is asked for; everything when None.
        fails: Names of nodes and tests that fail.
        silent: Names of tests that dbt gives no result of.
        killed: The run ends when dbt begins its node of this number, at the latest when dbt has ended.
        killed_after: The run ends when it has published so many tables.
        retry: It goes on with what the run before it has begun.
        full_refresh: It was asked for with that option.
        file_is_lost: The DuckDB file is gone when it begins.
    """

    assets: tuple[str, ...] | None = None
    fails: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    killed: int | None = None
    killed_after: int | None = None
    retry: bool = False
    full_refresh: bool = False
    file_is_lost: bool = False


@dataclass(frozen=True)
class Story:
    """A product and its runs.

    Args:
        nodes: Each after those that it reads.
        tests: In any order.
        steps: One after the other; each brings a new row of each source.
    """

    nodes: tuple[Node, ...]
    tests: tuple[Test, ...] = ()
    steps: tuple[Step, ...] = ()
    by_name: dict[str, Node] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {node.name: node for node in self.nodes})

    @property
    def assets(self) -> list[Node]:
        """What is built, each after what it reads."""
        return [node for node in self.nodes if node.kind != "ephemeral"]

    def through(self, names: Iterable[str]) -> set[str]:
        """Return the assets of these names, and those that ephemeral models of these names read."""
        found = set()
        for node in (self.by_name[name] for name in names if name in self.by_name):
            found |= self.through(node.reads) if node.kind == "ephemeral" else {node.name}
        return found

    def reads(self, name: str) -> set[str]:
        """Return the assets that a node reads."""
        return self.through(self.by_name[name].reads)

    def unit_tests(self, name: str) -> list[str]:
        """Return the names of the unit tests of a model."""
        return [test.name for test in self.tests if test.kind == "unit" and test.reads[0] == name]

    def ancestors(self, names: Iterable[str]) -> set[str]:
        """Return all nodes and sources that these read, directly or not, without themselves."""
        found: set[str] = set()
        pending = [up for name in names if name in self.by_name for up in self.by_name[name].reads]
        while pending:
            up = pending.pop()
            if up not in found:
                found.add(up)
                pending += self.by_name[up].reads if up in self.by_name else ()
        return found


def side_by_side(stories: Sequence[Story], steps: Sequence[Step]) -> Story:
    """Return one product that holds several, so that they are compiled once; each has names of its own.

    Args:
        stories: Their steps say what is asked for and what fails.
        steps: Say what happens to all of it: a kill, a retry, a lost file.
    """
    parts = [_renamed(story, f"p{number}_") for number, story in enumerate(stories)]
    merged = []
    for number, step in enumerate(steps):
        own = [(part, part.steps[number]) for part in parts]
        asked = tuple(
            name for part, mine in own for name in mine.assets or [each.name for each in part.assets]
        )
        fails = tuple(name for _part, mine in own for name in mine.fails)
        silent = tuple(name for _part, mine in own for name in mine.silent)
        if step.retry:
            asked = merged[-1].assets or ()
        elif all(mine.assets is None for _part, mine in own):
            asked = ()
        merged.append(replace(step, assets=asked or None, fails=fails, silent=silent))
    return Story(
        tuple(node for part in parts for node in part.nodes),
        tuple(test for part in parts for test in part.tests),
        tuple(merged),
    )


def _renamed(story: Story, prefix: str) -> Story:
    def named(names: Collection[str]) -> tuple[str, ...]:
        return tuple(name if name in SOURCES else prefix + name for name in names)

    def steps() -> Iterator[Step]:
        for step in story.steps:
            assets = None if step.assets is None else named(step.assets)
            yield replace(step, assets=assets, fails=named(step.fails), silent=named(step.silent))

    return Story(
        tuple(
            replace(
                node,
                name=prefix + node.name,
                reads=named(node.reads),
                folder="/".join(prefix + part for part in node.folder.split("/")) if node.folder else "",
            )
            for node in story.nodes
        ),
        tuple(
            replace(test, name=prefix + test.name, reads=named(test.reads), withholds=named(test.withholds))
            for test in story.tests
        ),
        tuple(steps()),
    )
