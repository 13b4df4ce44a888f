"""Compares two published tables cell by cell, as PyIceberg reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pyiceberg.table import Table

RELATIVE_TOLERANCE = 1e-9
"""Engines add floating point numbers in another order, and so did one engine the next time."""
MOST_SHOWN = 20


def differences(left: Table, right: Table) -> list[str]:
    """Return how two tables differ, for people; nothing where they are the same.

    Columns have to have the same names, Iceberg types, comments and order. Rows have none: they are put beside each other
    by all that is not floating point.

    Args:
        left: One table.
        right: The other one, maybe of another engine.
    """
    columns = _columns(left), _columns(right)
    if columns[0] != columns[1]:
        return [
            f"columns: {found} and {other}"
            for found, other in _paired(*columns)
            if found != other
        ]
    rows = _sorted(left.scan().to_arrow().to_pylist()), _sorted(right.scan().to_arrow().to_pylist())
    found = [] if len(rows[0]) == len(rows[1]) else [f"{len(rows[0])} and {len(rows[1])} rows"]
    found += [
        f"row {number}, {name}: {value!r} and {other[name]!r} in {row}"
        for number, (row, other) in enumerate(zip(*rows, strict=False))
        for name, value in row.items()
        if not same(value, other[name])
    ]
    return found[:MOST_SHOWN]


def same(left: Any, right: Any) -> bool:
    """Return whether two values are of the same type and equal, floating point within the tolerance."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        both_nan = math.isnan(left) and math.isnan(right)
        return both_nan or math.isclose(left, right, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-15)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def _columns(table: Table) -> list[str]:
    return [
        f"{field.name} {field.field_type}{' required' if field.required else ''}: {field.doc}"
        for field in table.schema().fields
    ]


def _paired(left: Iterable[str], right: Iterable[str]) -> Iterable[tuple[str | None, str | None]]:
    from itertools import zip_longest

    return zip_longest(left, right)


def _sorted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=_place)


def _place(row: Mapping[str, Any]) -> tuple[list[str], list[float]]:
    exact = [repr(value) for value in row.values() if not isinstance(value, float)]
    return exact, [value for value in row.values() if isinstance(value, float)]
