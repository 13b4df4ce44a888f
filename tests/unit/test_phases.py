"""In which order the engines of a product work."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from floe_dagster.execution.phases import plan_phases
from floe_dagster.schemas.product_index import Asset
from tests.index import asset, check


def graph(*lines: str) -> dict[str, Asset]:
    """Assets from `name engine: what it reads`, each after those that it reads."""
    assets = {}
    for line in lines:
        head, _, reads = line.partition(":")
        name, engine = head.split()
        assets[name] = asset(name, *reads.split(), engine=engine)
    return assets


def plan(assets: dict[str, Asset], tests: dict[str, str] | None = None, **asked: set[str]) -> Any:
    """The phases as text; tests from `id: what it reads > what it withholds`, attached to the first of the latter.

    Without `>` a test withholds what it reads.
    """
    checks = {}
    for key, line in (tests or {}).items():
        reads, _, withholds = line.partition(">")
        checks[key] = check(key, reads, withholds)
    phases = plan_phases(
        assets, checks, wanted=asked.get("wanted", set(assets)), alone=asked.get("alone", set())
    )
    return [(phase.engine, " ".join(sorted(phase.wanted)), " ".join(sorted(phase.tests))) for phase in phases]


CHAIN = graph("a duckdb:", "b trino: a", "c duckdb: b", "d duckdb: a")


def test_one_engine_has_one_phase_with_all_tests_of_what_it_builds() -> None:
    assets = graph("a duckdb:", "b duckdb: a", "c duckdb: b")
    assert plan(assets, {"t": "a c"}) == [("duckdb", "a b c", "t")]
    assert plan(assets, {"t": "a c"}, wanted={"c"}) == [("duckdb", "c", "t")]
    assert plan(assets, {"t": "a c"}, wanted={"b"}) == [("duckdb", "b", "")]
    assert plan(assets, wanted=set()) == []


def test_each_phase_builds_all_that_it_can() -> None:
    assert plan(CHAIN) == [("duckdb", "a d", ""), ("trino", "b", ""), ("duckdb", "c", "")]


def test_the_engine_that_saves_a_phase_begins() -> None:
    assets = graph("a duckdb:", "b trino:", "c duckdb: b", "d duckdb: a")
    assert plan(assets) == [("trino", "b", ""), ("duckdb", "a c d", "")]


def test_what_is_not_asked_for_hands_the_waiting_on() -> None:
    assets = graph("a trino:", "view duckdb: a", "c duckdb: view", "d trino: c")
    assert plan(assets, wanted={"a", "c"}) == [("trino", "a", ""), ("duckdb", "c", "")]
    assert plan(assets, wanted={"c", "d"}) == [("duckdb", "c", ""), ("trino", "d", "")]
    assert plan(assets, wanted={"c"}) == [("duckdb", "c", "")]


@pytest.mark.parametrize(
    ("reads", "phase"),
    [("a b", 1), ("b a", 1), ("a c", 2), ("a b c", 2), ("a d", 0), ("c", 2), ("a", 0), ("b", 1)],
)
def test_a_test_runs_with_the_last_of_what_it_reads(reads: str, phase: int) -> None:
    planned = [tests for _engine, _wanted, tests in plan(CHAIN, {"t": reads})]
    assert planned == ["t" if number == phase else "" for number in range(3)]


@pytest.mark.parametrize(
    ("line", "phase"),
    # Of a source: nothing that it reads is built. Of an ephemeral model: what that reads is.
    [("> b c", 1), ("> c", 2), ("> a c", 0), ("a > c", 2), ("a > b c", 1), ("b > a", 1)],
)
def test_a_test_of_no_table_runs_before_the_first_of_its_readers_is_published(line: str, phase: int) -> None:
    planned = [tests for _engine, _wanted, tests in plan(CHAIN, {"t": line})]
    assert planned == ["t" if number == phase else "" for number in range(3)]


@pytest.mark.parametrize(
    ("line", "phases"),
    [
        # `d` waits for `b`, since its test reads that.
        ("d b > d", [("duckdb", "a", ""), ("trino", "b", ""), ("duckdb", "c d", "t")]),
        ("b > d", [("duckdb", "a", ""), ("trino", "b", ""), ("duckdb", "c d", "t")]),
        ("a b > b", [("duckdb", "a d", ""), ("trino", "b", "t"), ("duckdb", "c", "")]),
    ],
)
def test_a_table_waits_for_what_its_test_reads_of_another_engine(line: str, phases: Any) -> None:
    assert plan(CHAIN, {"t": line}) == phases


def test_a_table_is_not_kept_waiting_for_what_is_not_built() -> None:
    assert plan(CHAIN, {"t": "d b > d"}, wanted={"a", "d"}) == [("duckdb", "a d", "t")]


@given(st.data())
def test_no_table_is_published_before_its_tests_have_run(data: st.DataObject) -> None:
    """Whatever compiles: a test runs no later than the first of its tables is published, and after all that it reads."""
    names = "abcdef"
    assets = {}
    for number, name in enumerate(names):
        deps = data.draw(st.lists(st.sampled_from(names[:number]), max_size=2, unique=True)) if number else []
        assets[name] = asset(name, *deps, engine=data.draw(st.sampled_from(["duckdb", "trino"])))
    some = st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)
    tests = {}
    for number in range(data.draw(st.integers(0, 4))):
        reads = data.draw(some)
        tests[f"t{number}"] = check(
            f"t{number}", " ".join(reads), " ".join(data.draw(st.sampled_from([reads, reads[:1]])))
        )
    waits = {key: set(each.deps) for key, each in assets.items()}
    for test in tests.values():
        for judged in test.withholds:
            waits[judged].update(test.reads)
    # What waits for itself and is built by both is a finding of the compilation.
    assume(not any(_crosses(waits, assets, key) for key in waits))
    wanted = set(data.draw(some)) | set(data.draw(some))
    phases = plan_phases(assets, tests, wanted=wanted, alone=set())
    built = {key: number for number, phase in enumerate(phases) for key in phase.wanted}
    assert built.keys() == wanted and all(phase.wanted for phase in phases)
    for number, phase in enumerate(phases):
        for key in phase.tests:
            assert all(built.get(read, 0) <= number for read in tests[key].reads)
            assert all(built.get(judged, number) >= number for judged in tests[key].withholds)
    ran = {key for phase in phases for key in phase.tests}
    assert ran == {key for key, test in tests.items() if not wanted.isdisjoint(test.withholds)}


def _crosses(waits: dict[str, set[str]], assets: dict[str, Asset], key: str) -> bool:
    """Tell whether an asset waits for itself through another engine."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        pending = [*waits[start]]
        while pending:
            if (each := pending.pop()) not in found:
                found.add(each)
                pending += waits[each]
        return found

    return any(key in reached(each) and assets[each].engine != assets[key].engine for each in reached(key))


def test_a_test_runs_though_a_part_of_what_it_reads_is_not_built() -> None:
    assert plan(CHAIN, {"t": "a b"}, wanted={"b"}) == [("trino", "b", "t")]


def test_a_test_that_withholds_nothing_that_is_built_is_left_out() -> None:
    assert plan(CHAIN, {"t": "a d", "u": "a > c"}, wanted={"b"}) == [("trino", "b", "")]


def test_a_test_alone_runs_where_its_engine_works_anyway() -> None:
    assert plan(CHAIN, {"u": "a d"}, wanted={"c"}, alone={"u"}) == [("duckdb", "c", "u")]
    assert plan(CHAIN, {"u": "a d"}, wanted=set(), alone={"u"}) == [("duckdb", "", "u")]
    assert plan(CHAIN, {"t": "b a"}, wanted={"c"}, alone={"t"}) == [
        ("duckdb", "c", ""),
        ("trino", "", "t"),
    ]
