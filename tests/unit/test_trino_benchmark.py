"""The arithmetic of `make bench-trino`: lines through what was measured, and where they cross."""

from __future__ import annotations

import pytest

from tests.benchmarks.lines import Line, growth_lines, nodes_to_overtake, overtakes
from tests.benchmarks.trino_report import DUCKDB, ONE, TWO, Taken, rows, same, switch


def test_two_scales_give_the_line_through_both() -> None:
    lines = growth_lines({"duckdb": {0.1: 6.0, 1: 15.0}, "trino": {0.1: 25.0, 1: 70.0}})
    assert lines["duckdb"].fixed == pytest.approx(5)
    assert lines["duckdb"].per_scale == pytest.approx(10)
    assert lines["trino"].at(10) == pytest.approx(520)


def test_more_scales_give_the_line_between_them() -> None:
    line = growth_lines({"a": {0: 1.0, 1: 1.0, 2: 4.0}})["a"]
    assert (line.fixed, line.per_scale) == (pytest.approx(0.5), pytest.approx(1.5))


def test_one_scale_gives_none() -> None:
    with pytest.raises(ValueError, match="two scales"):
        growth_lines({"a": {1: 2.0}})


@pytest.mark.parametrize(
    ("line", "other", "scale"),
    [
        (Line(20, 5), Line(5, 10), 3.0),
        (Line(20, 10), Line(5, 10), None),
        (Line(20, 50), Line(5, 10), None),
        (Line(1, 50), Line(5, 10), None),
        (Line(1, 5), Line(5, 10), 0.0),
        (Line(1, 5), Line(1, 5), None),
    ],
)
def test_where_one_passes_below_the_other(line: Line, other: Line, scale: float | None) -> None:
    assert overtakes(line, other) == scale


def test_nodes_divide_what_grows_but_not_what_is_fixed() -> None:
    trino, duckdb = Line(20, 50), Line(5, 10)
    assert nodes_to_overtake(trino, duckdb) == 6
    assert trino.on_nodes(10) == Line(20, 5)
    assert overtakes(trino.on_nodes(5), duckdb) is None
    assert overtakes(trino.on_nodes(10), duckdb) == 3


def test_nothing_is_overtaken_that_does_not_grow() -> None:
    assert nodes_to_overtake(Line(20, 50), Line(5, 0)) is None
    assert nodes_to_overtake(Line(20, 5), Line(5, 10)) == 1


def test_the_bar_is_that_of_trino_at_the_largest_scale() -> None:
    taken = [
        Taken(engine, scale, ours, seconds, 2**30)
        for engine in (DUCKDB, ONE, TWO)
        for scale in (0.1, 1)
        for ours, seconds in ((True, 30.0), (False, 20.0))
    ]
    found = rows(taken, {0.1: [], 1: ["fct_orders: one thing", "fct_orders: another", "stg_orders: a third"]})
    bars = {row.what.partition(": ")[0]: (row.bar, row.met) for row in found}
    assert bars[f"{DUCKDB}, scale 1"] == bars[f"{ONE}, scale 0.1"] == ("-", True)
    assert bars[f"{ONE}, scale 1"] == bars[f"{TWO}, scale 1"] == ("<= 1.2", False)
    same_rows = {row.what: (row.measured, row.met) for row in found if "same rows" in row.what}
    assert list(same_rows.values()) == [("7", True), ("5", False)]


def test_sums_of_floating_point_differ_a_little_and_nothing_else_does() -> None:
    seen = {"rows": 2, "id bigint": "AB12", "price double": 10.0}
    assert same(seen, {**seen, "price double": 10.000000001})
    assert not same(seen, {**seen, "price double": 10.1})
    assert not same(seen, {**seen, "id bigint": "AB13"})
    assert not same(seen, {"rows": 2, "id integer": "AB12", "price double": 10.0})


def test_where_to_switch() -> None:
    duckdb, trino = Line(5, 10), Line(20, 50)
    said = switch({DUCKDB: duckdb, ONE: trino, TWO: trino})
    assert "does not overtake" in said
    assert "| 6 | 9 | 95 s |" in said and "| 12 | 2.57 | 31 s |" in said
    assert "overtakes DuckDB at scale 3." in switch({DUCKDB: duckdb, ONE: trino, TWO: Line(20, 5)})
    assert "too small" in switch({DUCKDB: Line(5, -1), ONE: trino, TWO: trino})
