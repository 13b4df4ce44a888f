"""The arithmetic of `make bench-trino`: lines through what was measured, and where they cross."""

from __future__ import annotations

import pytest

from tests.benchmarks.lines import Line, growth_lines, nodes_to_overtake, overtakes


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
