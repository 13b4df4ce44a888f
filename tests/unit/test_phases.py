"""In which order the engines of a product work."""

from __future__ import annotations

from typing import Any

import pytest

from floe_dagster.definitions.phases import plan_phases


def graph(*lines: str) -> dict[str, dict[str, Any]]:
    """Assets from `name engine: what it reads`, each after those that it reads."""
    assets = {}
    for line in lines:
        head, _, reads = line.partition(":")
        name, engine = head.split()
        assets[name] = {"engine": engine, "deps": reads.split()}
    return assets


def plan(assets: dict[str, dict[str, Any]], tests: dict[str, str] | None = None, **asked: set[str]) -> Any:
    """The phases as text; tests from `id: what it reads`, attached to the first of it."""
    checks = {
        key: {"asset": reads.split()[0], "reads": reads.split()} for key, reads in (tests or {}).items()
    }
    wanted = asked.get("wanted", set(assets))
    phases = plan_phases(
        assets, checks, wanted=wanted, done=asked.get("done", set()), repeated=asked.get("repeated", set())
    )
    return [(phase.engine, " ".join(sorted(phase.wanted)), " ".join(sorted(phase.tests))) for phase in phases]


CHAIN = graph("a duckdb:", "b trino: a", "c duckdb: b", "d duckdb: a")


def test_one_engine_has_one_phase_and_dbt_chooses_the_tests() -> None:
    assets = graph("a duckdb:", "b duckdb: a", "c duckdb: b")
    assert plan(assets, {"t": "a c"}) == [("duckdb", "a b c", "")]
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
    ("reads", "phase"), [("a b", 1), ("b a", 1), ("a c", 2), ("a b c", 2), ("a d", None), ("c", None)]
)
def test_a_test_runs_with_the_last_of_what_it_reads(reads: str, phase: int | None) -> None:
    planned = [tests for _engine, _wanted, tests in plan(CHAIN, {"t": reads})]
    assert planned == ["t" if number == phase else "" for number in range(3)]


def test_a_test_of_what_a_run_does_not_change_is_left_out() -> None:
    assert plan(CHAIN, {"t": "a b"}, wanted={"b"}) == [("trino", "b", "")]


def test_a_retry_goes_on_where_the_engines_were() -> None:
    assert plan(CHAIN, {"t": "a b", "u": "a d"}, wanted={"b", "c"}, done={"a", "d"}) == [
        ("trino", "b", "t"),
        ("duckdb", "c", ""),
    ]
    # Its result was never recorded, and nothing that it reads is built again.
    assert plan(CHAIN, {"u": "a d"}, wanted={"c"}, done={"a", "b", "d"}, repeated={"u"}) == [
        ("duckdb", "c", "u")
    ]
    assert plan(CHAIN, {"u": "a d"}, wanted=set(), done=set(CHAIN), repeated={"u"}) == [("duckdb", "", "u")]
    assert plan(CHAIN, {"t": "b a"}, wanted={"c"}, done={"a", "b", "d"}, repeated={"t"}) == [
        ("duckdb", "c", ""),
        ("trino", "", "t"),
    ]
