"""Owners: whatever people write, Dagster takes what comes of it."""

from __future__ import annotations

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floe_dagster.compilation.asset_index import asset_owners


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        ("shop@example.com", ["shop@example.com"]),
        ("team:shop.a", ["team:shop.a"]),
        ("Customer Analytics", ["team:Customer-Analytics"]),
        # Dagster takes these for no address.
        ("a@b.c", ["team:a-b-c"]),
        ("shop@example.technology", ["team:shop-example-technology"]),
        ("数据", ["team:数据"]),
        ("!!", ["team:!!"]),
        ("team:", []),
        (" ", []),
    ],
)
def test_owners(owner: str, expected: list[str]) -> None:
    assert asset_owners(owner) == expected


@given(st.text())
def test_dagster_takes_every_owner(owner: str) -> None:
    dg.AssetSpec("orders", owners=asset_owners(owner))
