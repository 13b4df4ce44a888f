"""In which order the engines of a product work."""

from __future__ import annotations

from typing import Any

import pytest

from floe_dagster.execution.phases import plan_phases


def graph(*lines: str) -> dict[str, dict[str, Any]]:
    """Assets from `name engine: what it reads`, each after those that it reads."""
    assets = {}
    for line in lines:
        head, _, reads = line.partition(":")
        name, engine = head.split()
        assets[name] = {"engine": engine, "deps": reads.split()}
    return assets


def plan(assets: dict[str, dict[str, Any]], tests: dict[str, str] | None = None, **asked: set[str]) -> Any:
    """The phases as text; tests from `id: what it reads > what it withholds`, attached to the first of the latter.

    Without `>` a test withholds what it reads.
    """
    checks = {}
    for key, line in (tests or {}).items():
        reads, _, withholds = line.partition(">")
        judged = withholds.split() or reads.split()
        checks[key] = {"asset": judged[0], "reads": reads.split(), "withholds": judged}
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
