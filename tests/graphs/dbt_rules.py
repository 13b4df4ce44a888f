"""What `dbt build` does with what it is asked for: which nodes it skips, in which order it goes.

It is dbt's behaviour, not the product's: `Linker.add_test_edges` (dbt/compilation.py), `_mark_dependent_errors` (dbt/task/runnable.py)
and the unit tests of a model (dbt/task/build.py). Real dbt is held to it by each story that goes through both.
"""

from __future__ import annotations

from collections.abc import Collection

from tests.graphs.story import Story, Test

BUILT, FAILED, SKIPPED = "success", "error", "skipped"
PASSED, TEST_FAILED, WARNED = "pass", "fail", "warn"


def statuses(
    story: Story, planned: Collection[str], fails: Collection[str], silent: Collection[str] = ()
) -> dict[str, str]:
    """Return dbt's status by name of node or test, in the order in which dbt gives it.

    Args:
        story: Its nodes and tests.
        planned: Names of the assets and tests that dbt is asked for.
        fails: Names of nodes and tests that fail.
        silent: Names of tests that have no result.
    """
    waits = _waits(story)
    given: dict[str, str] = {}
    # What fails, and what is skipped for that: its readers are, too, through what is not selected.
    stopped: set[str] = set()
    tests = {test.name: test for test in story.tests}
    for name in _order(waits):
        skipped = not stopped.isdisjoint(waits[name])
        if name not in planned or name in silent:
            if skipped:
                stopped.add(name)
            continue
        if skipped:
            given[name] = SKIPPED
        elif name in tests:
            given[name] = PASSED if name not in fails else WARNED if tests[name].warns else TEST_FAILED
        else:
            given[name] = FAILED if name in fails else BUILT
        if given[name] in (SKIPPED, FAILED, TEST_FAILED):
            stopped.add(name)
    return given


def _waits(story: Story) -> dict[str, set[str]]:
    """Return by node and test what it waits for, and is skipped with."""
    waits = {node.name: {*node.reads, *story.unit_tests(node.name)} for node in story.nodes}
    for test in story.tests:
        # A unit test runs before its model, and is skipped where that is.
        waits[test.name] = set(story.by_name[test.reads[0]].reads) if test.kind == "unit" else set(test.reads)
    for node in story.nodes:
        above = story.ancestors([node.name])
        waits[node.name] |= {test.name for test in story.tests if _comes_before(test, above)}
    for test in (test for test in story.tests if test.kind == "unit"):
        waits[test.name] |= waits[test.reads[0]] - set(story.unit_tests(test.reads[0]))
    return waits


def _comes_before(test: Test, above: set[str]) -> bool:
    return test.kind != "unit" and above.issuperset(test.reads)


def _order(waits: dict[str, set[str]]) -> list[str]:
    done: dict[str, None] = {}
    while len(done) < len(waits):
        done.update(
            {
                name: None
                for name, before in waits.items()
                if name not in done and (before & waits.keys()) <= done.keys()
            }
        )
    return list(done)
