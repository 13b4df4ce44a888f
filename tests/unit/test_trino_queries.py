"""Trino's sizes and durations, as they stand in its REST answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floe_dagster.engines.trino.queries import seconds, size
from floe_dagster.engines.trino.warehouse import rendered
from floe_dagster.iceberg.types import quoted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0B", 0),
        ("512B", 512),
        ("1.50kB", 1536),
        ("2MB", 2 << 20),
        ("3.25GB", 3489660928),
        (None, 0),
        ("?", 0),
    ],
)
def test_sizes(text: str | None, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.00ns", 0.0),
        ("250.00us", 0.00025),
        ("12.5ms", 0.0125),
        ("1.20m", 72.0),
        ("2h", 7200.0),
        (None, 0.0),
    ],
)
def test_durations(text: str | None, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


@given(st.text())
def test_anything_else_is_nothing_and_no_error(text: str) -> None:
    assert size(text) >= 0 and seconds(text) >= 0


@given(st.text(min_size=1))
def test_a_name_in_quotes_ends_where_it_ends(name: str) -> None:
    inner = quoted(name)[1:-1]
    assert inner.replace('""', "").count('"') == 0 and inner.replace('""', '"') == name
    assert rendered([name, "t"]).endswith('."t"')
