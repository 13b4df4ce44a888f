"""Random stories, which shrink towards one table and one run of everything."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.graphs.story import SOURCES, Node, Step, Story, Test, side_by_side

NAMES = ("orders", "daily", "events", "dim_v1", "dim_v2", "mart", "history", "late")
"""Folders are called like nodes, and like the package and the project."""
FOLDERS = ("", "orders", "orders/daily", "shop", "hub", "dim", "events")
KINDS = ("table", "table", "append", "view", "ephemeral", "snapshot", "merge", "delete+insert", "seed")
OF_VERSIONS = ("table", "append", "view")


@st.composite
def products(draw: st.DrawFn, *, graphs: int = 4, steps: int = 5, is_scripted: bool = True) -> Story:
    """Draw several small graphs as one product, with the runs of it.

    A compilation, a run and what ends it cost the same for one graph and for four. What fails shrinks towards one.

    Args:
        draw: Hypothesis'.
        graphs: Nearly always so many.
        steps: So many runs at most.
        is_scripted: Whether a test may have no result though it was compiled.
    """
    runs = draw(_runs(steps))
    graph = _graphs(len(runs), is_scripted)
    parts = draw(st.sampled_from((*range(1, graphs), *(graphs,) * 60)))
    return side_by_side([draw(graph) for _ in range(parts)], runs)


@st.composite
def _graphs(draw: st.DrawFn, steps: int, is_scripted: bool) -> Story:
    nodes = draw(_nodes(6))
    tests = draw(_tests(nodes))
    asked = draw(_asked(Story(nodes, tests), steps, is_scripted))
    return Story(nodes, tests, asked)


@st.composite
def _runs(draw: st.DrawFn, most: int) -> tuple[Step, ...]:
    """Draw what happens to all of a product."""
    runs: list[Step] = []
    for number in range(draw(st.integers(1, 2 * most))):
        if number == most:
            break
        end = draw(st.sampled_from(("ends", "ends", "ends", "ends", "killed", "killed_after")))
        again = number > 0
        runs.append(
            Step(
                killed=draw(st.integers(1, 12)) if end == "killed" else None,
                killed_after=draw(st.integers(1, 4)) if end == "killed_after" else None,
                retry=again and draw(st.sampled_from((False, False, True))),
                full_refresh=draw(st.sampled_from((False,) * 6 + (True,))),
                file_is_lost=again and draw(st.sampled_from((False,) * 6 + (True,))),
            )
        )
    return tuple(runs)


@st.composite
def _nodes(draw: st.DrawFn, most: int) -> tuple[Node, ...]:
    nodes: list[Node] = []
    for name in NAMES[: min(draw(st.integers(1, 2 * most)), most)]:
        kind = draw(st.sampled_from(OF_VERSIONS if "_v" in name else KINDS))
        # Most read the one before: chains are where most happens.
        before = [node.name for node in nodes]
        known = [*SOURCES, *before, *(before[-1:] * 3)]
        reads = st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True)
        publish = st.sampled_from((None, None, None, True, False))
        nodes.append(
            Node(
                name,
                kind,
                () if kind == "seed" else tuple(draw(reads)),
                draw(st.sampled_from(FOLDERS)),
                # All versions of a model lie in one package.
                "shop" if "_v" in name else draw(st.sampled_from(("shop", "shop", "hub"))),
                None if kind == "ephemeral" else draw(publish),
            )
        )
    if all(node.kind == "ephemeral" for node in nodes):
        nodes.append(Node("last", reads=(nodes[-1].name,)))
    return tuple(nodes)


@st.composite
def _tests(draw: st.DrawFn, nodes: tuple[Node, ...]) -> tuple[Test, ...]:
    tests = []
    known = [*(node.name for node in nodes), *SOURCES]
    units = [n.name for n in nodes if n.kind not in ("ephemeral", "seed", "snapshot") and n.version is None]
    story = Story(nodes)
    for number in range(min(draw(st.integers(0, 6)), 4)):
        kind = draw(st.sampled_from(("generic", "compared", "singular", "unit" if units else "generic")))
        warns = kind != "unit" and draw(st.sampled_from((False, False, False, True)))
        if kind == "unit":
            reads = [draw(st.sampled_from(units))]
        else:
            least = 2 if kind == "compared" else 1
            most = {"generic": 1, "compared": 2, "singular": 3}[kind]
            few = min(len(known), most)
            reads = draw(
                st.lists(st.sampled_from(known), min_size=min(least, few), max_size=few, unique=True)
            )
        withholds: tuple[str, ...] = ()
        judged = sorted(story.through(reads) & set(reads))
        if kind == "singular" and judged and draw(st.booleans()):
            withholds = (draw(st.sampled_from(judged)),)
        tests.append(Test(f"t{number}_{kind}", kind, tuple(reads), warns, withholds))
    return tuple(test for test in tests if _concerns_something(test, story))


def _concerns_something(test: Test, story: Story) -> bool:
    """Tell whether an asset is, or reads, what a test looks at: others are findings of the compilation."""
    looked_at = set(test.reads[:1] if test.kind in ("generic", "compared") else test.reads)
    return any(not looked_at.isdisjoint({node.name, *story.ancestors([node.name])}) for node in story.assets)


@st.composite
def _asked(draw: st.DrawFn, story: Story, steps: int, is_scripted: bool) -> tuple[Step, ...]:
    """Draw what is asked of one graph, and what fails in it."""
    asked = []
    assets = [node.name for node in story.assets]
    fallible = [
        *(test.name for test in story.tests),
        *(node.name for node in story.assets if node.can_fail),
    ]
    errors = [test.name for test in story.tests if not test.warns]
    for _ in range(steps):
        some = st.lists(st.sampled_from(assets), min_size=1, max_size=2, unique=True).map(tuple)
        fails = st.lists(st.sampled_from(fallible), max_size=2, unique=True) if fallible else st.just([])
        silent = is_scripted and bool(errors) and draw(st.sampled_from((False,) * 8 + (True,)))
        asked.append(
            Step(
                draw(st.none() | some),
                tuple(draw(fails)),
                (draw(st.sampled_from(errors)),) if silent else (),
            )
        )
    return tuple(asked)
