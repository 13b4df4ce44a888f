"""The index of a product: what a bundle holds of it is read back, and so is what earlier versions wrote."""

from __future__ import annotations

import gc
import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floe_dagster.schemas.product_index import (
    Asset,
    Check,
    Column,
    Freshness,
    Lifecycle,
    ProductFacts,
    ProductIndex,
    Schedule,
    TableSettings,
)
from floe_dagster.schemas.product_index_json import INDEX_VERSION, index_from_json, index_to_json
from tests.index import asset, check, product_index

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
WORD = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
SOME = st.lists(TEXT, max_size=2).map(tuple)
RELATION = st.tuples(TEXT, TEXT, TEXT)
NUMBER = st.integers(0, 2**40)
COLUMNS = st.builds(Column, TEXT, st.none() | TEXT, TEXT, SOME, st.none() | WORD)
SETTINGS = st.builds(
    TableSettings,
    st.none() | SOME,
    st.none() | SOME,
    st.none() | TEXT,
    st.none() | SOME,
    st.none() | st.dictionaries(TEXT, TEXT, max_size=2),
    st.none() | TEXT,
)
ASSETS = st.builds(
    Asset,
    id=TEXT,
    name=TEXT,
    type=TEXT,
    materialized=TEXT,
    published=st.booleans(),
    engine=TEXT,
    relation=RELATION,
    deps=SOME,
    group=TEXT,
    description=TEXT,
    tags=SOME,
    owners=SOME,
    file=TEXT,
    checksum=TEXT,
    described=st.none() | st.tuples(TEXT, NUMBER),
    table=SETTINGS,
    unique_key=SOME,
    columns=st.lists(COLUMNS, max_size=2).map(tuple),
    relations=st.dictionaries(TEXT, RELATION, max_size=2),
)
CHECKS = st.builds(
    Check,
    id=TEXT,
    name=TEXT,
    asset=TEXT,
    reads=SOME,
    withholds=SOME,
    type=TEXT,
    severity=TEXT,
    may_warn=st.booleans(),
    kind=st.none() | TEXT,
    column=st.none() | TEXT,
    description=TEXT,
    file=st.none() | TEXT,
)
FACTS = st.builds(
    ProductFacts,
    slug=TEXT,
    name=TEXT,
    version=TEXT,
    owner=TEXT,
    description=st.none() | TEXT,
    labels=st.dictionaries(TEXT, TEXT, max_size=2),
    schedule=st.none() | st.builds(Schedule, TEXT, TEXT, st.booleans()),
    freshness=st.none() | st.builds(Freshness, NUMBER, st.none() | NUMBER),
    resources=st.none() | st.dictionaries(TEXT, st.dictionaries(TEXT, TEXT, max_size=2), max_size=2),
    preset=st.none() | TEXT,
    repository=st.none() | TEXT,
    lifecycle=st.builds(
        Lifecycle,
        st.none() | TEXT,
        st.none() | TEXT,
        st.none() | NUMBER,
        st.none() | NUMBER,
        st.none() | NUMBER,
    ),
)
INDEXES = st.builds(
    ProductIndex,
    FACTS,
    st.lists(ASSETS, max_size=2).map(tuple),
    st.lists(CHECKS, max_size=2).map(tuple),
    SOME,
)


def written(**changes: Any) -> dict[str, Any]:
    """Return an index as JSON values, with other values at its top."""
    one = asset("model.shop.orders", columns=(Column("id", "int"),))
    index = product_index([one], [check("test.shop.t", "model.shop.orders")])
    values: dict[str, Any] = json.loads(index_to_json(index))
    return {**values, **changes}


def read(values: object) -> ProductIndex:
    return index_from_json(json.dumps(values).encode(), default_engine=lambda: "duckdb")


@settings(max_examples=200, deadline=None)
@given(INDEXES)
def test_what_is_written_is_read_back(index: ProductIndex) -> None:
    source = index_to_json(index)
    assert index_from_json(source, default_engine=lambda: "") == index
    assert json.loads(source)["version"] == INDEX_VERSION


def test_nothing_in_it_can_be_changed() -> None:
    index = product_index([asset("model.shop.orders")])
    for held, name in ((index, "assets"), (index.product, "slug"), (index.assets[0], "published")):
        with pytest.raises(FrozenInstanceError):
            setattr(held, name, ())


@pytest.mark.parametrize("version", [INDEX_VERSION + 1, 99, "2.0", None, -1])
def test_another_version_is_refused_with_words(version: object) -> None:
    with pytest.raises(ValueError, match="Upgrade floe-dagster, or compile the product") as refused:
        read(written(version=version))
    assert f"has version {version!r}" in str(refused.value)


def test_a_state_of_before_versions_withholds_what_its_tests_read() -> None:
    older = written()
    del older["version"], older["checks"][0]["withholds"], older["checks"][0]["may_warn"]
    (found,) = read(older).checks
    assert found.withholds == found.reads == ("model.shop.orders",)
    assert found.may_warn


def test_a_state_of_before_there_were_several_engines_is_on_the_default_one() -> None:
    older = written()
    for name in ("engine", "table", "unique_key", "checksum", "described"):
        del older["assets"][0][name]
    del older["version"], older["functions"], older["product"]["lifecycle"]
    found = read(older)
    assert found.assets[0] == asset("model.shop.orders", columns=(Column("id", "int"),))
    assert found.product.lifecycle == Lifecycle() and found.functions == ()


def test_whoever_reads_takes_what_it_knows() -> None:
    """A later version may add fields, and an earlier one wrote of YAML what stood there."""
    later = written(further={})
    for row in (later["product"], later["assets"][0], later["assets"][0]["columns"][0], later["checks"][0]):
        row["further"] = 1
    later["assets"][0]["columns"][0]["classification"] = ["pii", 3]
    (column,) = read(later).assets[0].columns
    assert column == Column("id", "int", classification="['pii', 3]")


@pytest.mark.parametrize("path", ["product", "assets", "checks", "product.slug", "assets.id", "checks.reads"])
def test_what_is_missing_is_named(path: str) -> None:
    part, _, name = path.partition(".")
    values = written()
    rows = values[part] if name else values
    del (rows[0] if isinstance(rows, list) else rows)[name or part]
    with pytest.raises(ValueError, match=f"is damaged: it has no '{name or part}'"):
        read(values)


@pytest.mark.parametrize(
    "values", [[], 1, None, {"version": 1, "assets": 3}, {"version": 1, "assets": ["engine"]}]
)
def test_what_is_no_index_is_damaged(values: object) -> None:
    with pytest.raises(ValueError, match="is damaged"):
        read(values)


def test_the_collector_is_left_as_it_was() -> None:
    assert gc.isenabled()
    read(written())
    with pytest.raises(ValueError, match="damaged"):
        read([])
    assert gc.isenabled()
    gc.disable()
    try:
        read(written())
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_assets_come_after_what_they_read() -> None:
    index = product_index([asset("a", "b"), asset("b", "c"), asset("c")])
    assert [each.id for each in index.in_order()] == ["c", "b", "a"]


def test_an_engine_knows_the_tables_of_others_under_names_of_its_own() -> None:
    heavy = asset("model.shop.heavy", engine="trino", relations={"duckdb": ("shop", "main", "Heavy")})
    assert heavy.seen_by("trino") is heavy
    seen = heavy.seen_by("duckdb")
    assert (seen.full_relation, seen.place) == ("shop.main.Heavy", ("main", "heavy"))
    assert seen.is_foreign("duckdb") and seen.identifier("shop") == ("shop", "heavy")
