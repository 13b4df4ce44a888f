"""Compares two published tables cell by cell, as PyIceberg reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from pyiceberg.table import Table

RELATIVE_TOLERANCE = 1e-9
"""Engines add floating point numbers in another order, and so does one engine the next time."""
ZERO = 1e-12
"""What is left of numbers that cancel out, where no relative tolerance holds."""
MOST_SHOWN = 20


def differences(left: Table, right: Table) -> list[str]:
    """Return how two tables differ, for people; nothing where they are the same.

    Columns have the same names, Iceberg types, comments and order. Rows have no order: they are put beside each other by
    all that is not floating point.

    Args:
        left: One table.
        right: The other one, maybe of another engine.
    """
    columns = [
        f"columns: {one} and {other}"
        for one, other in zip_longest(_columns(left), _columns(right))
        if one != other
    ]
    if columns:
        return columns
    rows, others = (sorted(table.scan().to_arrow().to_pylist(), key=_place) for table in (left, right))
    found = [] if len(rows) == len(others) else [f"{len(rows)} and {len(others)} rows"]
    found += [
        f"{name}: {value!r} and {other[name]!r}; {row} and {other}"
        for row, other in zip(rows, others, strict=False)
        for name, value in row.items()
        if not same(value, other[name])
    ]
    return found[:MOST_SHOWN]


def same(left: Any, right: Any) -> bool:
    """Return whether two values have one type and are equal, floating point within the tolerance."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        return math.isclose(left, right, rel_tol=RELATIVE_TOLERANCE, abs_tol=ZERO)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def _columns(table: Table) -> list[str]:
    return [
        f"{field.name} {field.field_type}{' required' if field.required else ''}, comment {field.doc!r}"
        for field in table.schema().fields
    ]


def _place(row: Mapping[str, Any]) -> tuple[list[str], list[float]]:
    exact = [repr(value) for value in row.values() if not isinstance(value, float)]
    return exact, [value for value in row.values() if isinstance(value, float)]
