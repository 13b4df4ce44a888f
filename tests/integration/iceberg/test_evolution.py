"""What becomes of a published table when its model's columns or its layout change: the right table, or a refusal that helps.

Each variant publishes two relations to one table. A refusal names the column and the way out, and leaves the table as it was.
Whatever happens, every snapshot stays readable as it was published.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.expressions import IsNull, NotNull, Or
from pyiceberg.schema import Schema
from pyiceberg.types import IntegerType, NestedField, StringType

from floe_dagster.iceberg.errors import PublicationError
from floe_dagster.iceberg.layout import TableLayout
from floe_dagster.iceberg.publication import PublicationOptions, PublicationResult, publish_relation
from floe_dagster.iceberg.relation import RelationName

NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("warehouse")
    made = SqlCatalog("test", uri=f"sqlite:///{folder / 'catalog.db'}", warehouse=f"file://{folder}")
    made.create_namespace("shop")
    return made


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as made:
        yield made


def publish(
    con: Any,
    catalog: Catalog,
    table: str,
    sql: str,
    *,
    partition_by: list[str] | None = None,
    sort_by: list[str] | None = None,
    **options: Any,
) -> PublicationResult:
    con.execute(f"create or replace table t as {sql}").fetchall()
    return publish_relation(
        con,
        RelationName("memory", "main", "t"),
        catalog=catalog,
        namespace="shop",
        table=table,
        snapshot_properties={},
        options=PublicationOptions(layout=TableLayout.parse(partition_by, sort_by), **options),
    )


def rows(catalog: Catalog, table: str, snapshot: int | None = None) -> list[dict[str, Any]]:
    scanned = catalog.load_table(f"shop.{table}").scan(snapshot_id=snapshot)
    return sorted(scanned.to_arrow().to_pylist(), key=repr)


@dataclass(frozen=True)
class Variant:
    """Two publications of one table.

    Args:
        before: Select list and what follows it, and how it is published.
        after: The same of the second.
        rows: What the table holds then; None where the second publication is refused.
        columns: Names of the table's columns then, in their order.
        told: Words of `evolved`, or of the refusal.
    """

    before: tuple[str, dict[str, Any]]
    after: tuple[str, dict[str, Any]]
    rows: list[dict[str, Any]] | None = None
    columns: list[str] | None = None
    told: tuple[str, ...] = field(default=())


def by(*fields: str, **more: Any) -> dict[str, Any]:
    return {"partition_by": list(fields), **more}


def sorted_by(*fields: str, **more: Any) -> dict[str, Any]:
    return {"sort_by": list(fields), **more}


EU = "'eu' as region, 1 as v"
AT = "timestamp '2026-01-02 03:04:05' as at, 1 as v"
KEPT = {"mode": "append"}
UPSERT: dict[str, Any] = {"mode": "upsert", "key": ("id",)}
STANDS = "last snapshot stands"

VARIANTS = {
    # The column of a partition field goes.
    "partition column gone, partition_by kept": Variant(
        (EU, by("region")),
        ("1 as v, 'x' as w", by("region")),
        told=("'region'", "partition_by", "Take it out", "v, w"),
    ),
    "partition column gone, partition_by removed": Variant(
        (EU, by("region")),
        ("1 as v, 'x' as w", {}),
        [{"v": 1, "w": "x"}],
        ["v", "w"],
        ("dropped region", "partitioned by nothing: region is gone"),
    ),
    "partition column gone, partition_by empty": Variant(
        (EU, by("region")), ("1 as v", by()), [{"v": 1}], ["v"], ("partitioned by nothing",)
    ),
    "partition column gone, partition_by another, new column": Variant(
        (EU, by("region")), ("1 as v, 'x' as w", by("w")), [{"v": 1, "w": "x"}], told=("partitioned by w",)
    ),
    "partition column gone, partition_by another, old column": Variant(
        (EU, by("region")), ("1 as v", by("bucket(4, v)")), [{"v": 1}], told=("partitioned by v_bucket",)
    ),
    "one of two partition columns gone, partition_by removed": Variant(
        (EU, by("region", "v")), ("1 as v", {}), [{"v": 1}], told=("partitioned by v: region is gone",)
    ),
    "transformed partition column gone": Variant(
        (AT, by("day(at)", "bucket(3, v)")), ("1 as v", by("bucket(3, v)")), [{"v": 1}]
    ),
    "partition column gone, rows are added": Variant(
        (EU, by("region", **KEPT)),
        ("2 as v", by("region", **KEPT)),
        [{"region": "eu", "v": 1}, {"region": None, "v": 2}],
    ),
    "transformed partition column gone, rows are added": Variant(
        (AT, by("day(at)", **KEPT)), ("2 as v from range(2)", by("day(at)", **KEPT)), columns=["at", "v"]
    ),
    # Another partition spec.
    "partitioned later": Variant((EU, {}), (EU, by("region")), [{"region": "eu", "v": 1}]),
    "partition_by not stated any more": Variant((EU, by("region")), (EU, {}), [{"region": "eu", "v": 1}]),
    "another number of buckets": Variant(
        ("1 as v", by("bucket(4, v)")), ("1 as v", by("bucket(8, v)")), [{"v": 1}], told=("v_bucket",)
    ),
    "from day to hour": Variant((AT, by("day(at)")), (AT, by("hour(at)")), told=("at_hour",)),
    "partition fields in another order": Variant((EU, by("region", "v")), (EU, by("v", "region"))),
    "one field, asked for twice": Variant((EU, by("region")), (EU, by("region", "region"))),
    "two bucket fields of one column": Variant(
        (EU, {}), ("7 as v", by("bucket(2, v)", "bucket(3, v)")), [{"v": 7}]
    ),
    "a column takes the name of a partition field": Variant(
        (AT, by("day(at)")), (f"{AT}, 'x' as at_day", by("day(at)")), columns=["at", "v", "at_day"]
    ),
    "a partition field would take the name of a column": Variant(
        (f"{AT}, 'x' as at_day", {}), (f"{AT}, 'x' as at_day", by("day(at)"))
    ),
    "a layout in another case": Variant(
        (EU, by("Region", sort_by=["V desc"])),
        (EU, by("REGION", sort_by=["v desc"])),
        [{"region": "eu", "v": 1}],
    ),
    "a transform that the column cannot take": Variant(
        (EU, {}), (EU, by("day(region)")), told=("'region' is string", "partition_by")
    ),
    "more of a partition column": Variant(
        ("1::int as v", by("bucket(4, v)")), ("3000000000 as v", by("bucket(4, v)")), [{"v": 3_000_000_000}]
    ),
    # Another order of the rows.
    "sort column gone, sort_by kept": Variant(
        (EU, sorted_by("region")),
        ("1 as v", sorted_by("region")),
        told=("'region'", "sort_by", "Take it out"),
    ),
    "sort column gone, sort_by removed": Variant(
        (EU, sorted_by("region", "v")), ("1 as v", {}), [{"v": 1}], told=("sorted by v",)
    ),
    "the only sort column gone": Variant(
        (EU, sorted_by("region")), ("1 as v", {}), [{"v": 1}], told=("sorted by nothing",)
    ),
    "sorted otherwise": Variant((EU, sorted_by("region")), (EU, sorted_by("v desc")), told=("sorted by v",)),
    "sorted by a list": Variant(("[1] as l", {}), ("[1] as l", sorted_by("l")), told=("'l'", "sort_by")),
    # Names.
    "columns in another order": Variant(
        ("1 as a, 2 as b, 3 as c", {}),
        ("30 as c, 10 as a, 20 as b", {}),
        [{"c": 30, "a": 10, "b": 20}],
        ["c", "a", "b"],
        ("reordered columns",),
    ),
    "columns in another order, only new ones allowed": Variant(
        ("1 as a, 2 as b", {}),
        ("3 as c, 2 as b, 1 as a", {"schema_evolution": "additive"}),
        [{"a": 1, "b": 2, "c": 3}],
        ["a", "b", "c"],
    ),
    "a renamed column": Variant(
        ("1 as a, 2 as b", {}),
        ("1 as z, 2 as b", {}),
        [{"z": 1, "b": 2}],
        ["z", "b"],
        ("added z", "dropped a"),
    ),
    "two columns swap their names": Variant(
        ("1 as a, 2 as b", {}), ("1 as b, 2 as a", {}), [{"b": 1, "a": 2}]
    ),
    "a name in another case": Variant(
        ("1 as Id", {}), ("2 as id", {}), [{"id": 2}], ["id"], ("renamed Id to id",)
    ),
    "a name in another case, rows are added": Variant(
        ("1 as Id", KEPT), ("2 as id", KEPT), [{"id": 1}, {"id": 2}], ["id"], ("renamed Id to id",)
    ),
    "a key in another case": Variant(
        ("1 as Id, 'a' as v", UPSERT),
        ("unnest([1, 2]) as id, unnest(['b', 'c']) as v", {"mode": "upsert", "key": ("ID",)}),
        [{"id": 1, "v": "b"}, {"id": 2, "v": "c"}],
    ),
    "a name in another case, with a partition": Variant(
        ("'eu' as Region, 1 as v", by("Region")),
        ("'eu' as region, 1 as v", by("region")),
        [{"region": "eu", "v": 1}],
    ),
    "a name in another case, refused": Variant(
        ("1 as Id", {}), ("2 as id", {"schema_evolution": "refuse"}), told=("renamed Id to id", STANDS)
    ),
    "a name in another case and another type": Variant(
        ("1 as Id", {}), ("'x' as id", {}), told=("'id' is int", "string", "Cast it")
    ),
    "two names that differ in case alone": Variant(
        ("1 as é", {}), ("1 as é, 2 as É", {}), told=("'é'", "'É'", "another name")
    ),
    "two names that differ in their Unicode form": Variant(
        (f'1 as "{NFC}"', {}), (f'1 as "{NFC}", 2 as "{NFD}"', {}), [{NFC: 1, NFD: 2}], [NFC, NFD]
    ),
    "a name in another Unicode form": Variant(
        (f'1 as "{NFC}"', {}), (f'2 as "{NFD}"', {}), [{NFD: 2}], [NFD]
    ),
    "a partition by another Unicode form": Variant(
        (f"'x' as \"{NFC}\"", by(f'"{NFC}"')), (f"'x' as \"{NFD}\"", by(f'"{NFD}"')), [{NFD: "x"}]
    ),
    "a name that is the path of a nested field": Variant(
        ("{'b': 1} as a", {}), ("{'b': 1} as a, 2 as \"a.b\"", {}), told=("'a.b'", "without a dot")
    ),
    # Types.
    "int to long": Variant(
        ("1::int as a", {}), ("3000000000 as a", {}), [{"a": 3_000_000_000}], told=("widened a",)
    ),
    "int to long, rows are added": Variant(
        ("1::int as a", KEPT), ("3000000000 as a", KEPT), [{"a": 1}, {"a": 3_000_000_000}]
    ),
    "float to double": Variant(("1::float as a", {}), ("0.1::double as a", {}), [{"a": 0.1}]),
    "decimal with fewer digits": Variant(
        ("1.5::decimal(9,2) as a", {}),
        ("1.5::decimal(5,2) as a", {}),
        told=("'a'", "decimal(9, 2)", "Cast it"),
    ),
    "decimal with another scale": Variant(
        ("1.5::decimal(9,2) as a", {}), ("1.5::decimal(9,3) as a", {}), told=("'a'", "decimal(9, 3)")
    ),
    "long to int": Variant(
        ("1::bigint as a", {}), ("1::int as a", {}), told=("'a'", "long", "Cast it to long")
    ),
    "int to string": Variant(
        ("1 as a", {}), ("'x' as a", {}), told=("'a'", "another name", "drop the table")
    ),
    "string to binary": Variant(("'x' as a", {}), ("'x'::blob as a", {}), told=("'a'", "binary")),
    "date to timestamp": Variant(
        ("date '2026-01-01' as a", {}), ("timestamp '2026-01-01' as a", {}), told=("'a' is date",)
    ),
    "timestamp gets a zone": Variant(
        ("timestamp '2026-01-01' as a", {}), ("timestamptz '2026-01-01 00:00:00+00' as a", {}), told=("'a'",)
    ),
    "scalar to list": Variant(("1 as a", {}), ("[1] as a", {}), told=("'a' is int", "a list")),
    "struct to scalar": Variant(("{'x': 1} as a", {}), ("1 as a", {}), told=("'a' is a struct",)),
    # Nested fields.
    "a nested field is new": Variant(
        ("{'x': 1} as a", {}),
        ("{'x': 1, 'y': 2} as a", {}),
        [{"a": {"x": 1, "y": 2}}],
        told=("added a.y int",),
    ),
    "a nested field is gone": Variant(
        ("{'x': 1, 'y': 2} as a", {}), ("{'x': 1} as a", {}), [{"a": {"x": 1}}], told=("dropped a.y",)
    ),
    "a nested field is gone, rows are added": Variant(
        ("{'x': 1, 'y': 2} as a", KEPT),
        ("{'x': 3} as a", KEPT),
        [{"a": {"x": 1, "y": 2}}, {"a": {"x": 3, "y": None}}],
    ),
    "a nested field is gone from an upsert": Variant(
        ("unnest([1, 2]) as id, {'x': 1, 'y': 2} as a", UPSERT),
        ("2 as id, {'x': 3} as a", UPSERT),
        [{"id": 1, "a": {"x": 1, "y": 2}}, {"id": 2, "a": {"x": 3, "y": None}}],
    ),
    "nested fields in another order": Variant(
        ("{'x': 1, 'y': 2} as a", {}), ("{'y': 20, 'x': 10} as a", {}), [{"a": {"y": 20, "x": 10}}]
    ),
    "nested fields in another order, rows are added": Variant(
        ("{'x': 1, 'y': 2} as a", KEPT),
        ("{'y': 20, 'x': 10} as a", KEPT),
        [{"a": {"x": 1, "y": 2}}, {"a": {"x": 10, "y": 20}}],
    ),
    "a nested field in another case": Variant(
        ("{'X': 1} as a", {}), ("{'x': 2} as a", {}), [{"a": {"x": 2}}], told=("renamed a.X to x",)
    ),
    "a nested field grows": Variant(
        ("{'x': 1::int} as a", {}), ("{'x': 3000000000} as a", {}), [{"a": {"x": 3_000_000_000}}]
    ),
    "a nested field of another type": Variant(
        ("{'x': {'y': 1}} as a", {}), ("{'x': {'y': 'z'}} as a", {}), told=("'a.x.y' is int", "Cast it")
    ),
    "a struct in a list": Variant(
        ("[{'x': 1}] as a", {}), ("[{'y': 2}] as a", {}), [{"a": [{"y": 2}]}], told=("added a.element.y",)
    ),
    "a list's elements of another type": Variant(
        ("[1] as a", {}), ("['x'] as a", {}), told=("'a.element' is int",)
    ),
    "a map's values": Variant(
        ("map {'k': 1::int} as a", {}), ("map {'k': 3000000000} as a", {}), [{"a": [("k", 3_000_000_000)]}]
    ),
    "a map's keys": Variant(("map {1: 1} as a", {}), ("map {'k': 1} as a", {}), told=("'a.key'",)),
    "a nested change, refused": Variant(
        ("{'x': 1} as a", {}),
        ("{'x': 1, 'y': 2} as a", {"schema_evolution": "refuse"}),
        told=("added a.y", STANDS),
    ),
    "a column is gone, only new ones allowed": Variant(
        ("1 as a, 2 as b", {}), ("1 as a", {"schema_evolution": "additive"}), told=("dropped b", STANDS)
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_change_of_columns_or_layout(name: str, con: Any, catalog: Catalog) -> None:
    variant, table = VARIANTS[name], f"t{uuid.uuid4().hex}"
    (sql, options), (then, options_then) = variant.before, variant.after
    publish(con, catalog, table, f"select {sql}", **options)
    first = rows(catalog, table)
    stood = catalog.load_table(f"shop.{table}").metadata
    is_refused = bool(variant.told) and variant.rows is None and STANDS in variant.told
    try:
        result = publish(con, catalog, table, f"select {then}", **options_then)
    except PublicationError as error:
        assert variant.rows is None and variant.told, error
        assert [word for word in variant.told if word not in str(error)] == []
        assert rows(catalog, table) == first
        assert catalog.load_table(f"shop.{table}").metadata == stood
        return
    assert not is_refused
    told = ", ".join(result.evolved)
    assert [word for word in variant.told if word not in told] == []
    loaded = catalog.load_table(f"shop.{table}")
    if variant.rows is not None:
        assert rows(catalog, table) == sorted(variant.rows, key=repr)
    if variant.columns is not None:
        assert [column.name for column in loaded.schema().fields] == variant.columns
    # The snapshot before it is still what it was, and a third publication finds nothing to change.
    assert rows(catalog, table, stood.current_snapshot_id) == first
    again = publish(con, catalog, table, f"select {then}", **options_then)
    assert again.evolved == ()
    assert_filters_agree(catalog, table)


def assert_filters_agree(catalog: Catalog, table: str) -> None:
    """Check that partitions of new files and of old ones hide no row from a reader that filters."""
    loaded = catalog.load_table(f"shop.{table}")
    total = loaded.scan().to_arrow().num_rows
    for column in loaded.schema().fields:
        if column.field_type.is_primitive and "." not in column.name:
            condition = Or(IsNull(term=column.name), NotNull(term=column.name))
            assert loaded.scan(row_filter=condition).to_arrow().num_rows == total


def test_a_partition_column_that_went_comes_back_with_another_type(con: Any, catalog: Catalog) -> None:
    publish(con, catalog, "back", f"select {EU}", partition_by=["region"])
    publish(con, catalog, "back", "select 1 as v", partition_by=[])
    publish(con, catalog, "back", "select 7 as region, 1 as v", partition_by=["region"])
    assert rows(catalog, "back") == [{"region": 7, "v": 1}]
    snapshots = [snapshot.snapshot_id for snapshot in catalog.load_table("shop.back").snapshots()]
    assert [rows(catalog, "back", one) for one in snapshots] == [
        [{"region": "eu", "v": 1}],
        [{"v": 1}],
        [{"region": 7, "v": 1}],
    ]
    assert_filters_agree(catalog, "back")


def test_a_column_that_comes_back_does_not_bring_old_values(con: Any, catalog: Catalog) -> None:
    publish(con, catalog, "returning", "select 1 as a, 'x' as b")
    publish(con, catalog, "returning", "select 1 as a")
    publish(con, catalog, "returning", "select 2 as a, 5 as b", mode="append")
    assert rows(catalog, "returning") == [{"a": 1, "b": None}, {"a": 2, "b": 5}]


@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_a_required_column_becomes_optional(con: Any, catalog: Catalog, mode: str) -> None:
    table = f"required_{mode}"
    catalog.create_table(
        f"shop.{table}",
        Schema(
            NestedField(1, "id", IntegerType(), required=True),
            NestedField(2, "gone", StringType(), required=True),
            identifier_field_ids=[1, 2],
        ),
    )
    result = publish(con, catalog, table, "select null::int as id, 2 as v", mode=mode)
    assert "made id optional" in result.evolved
    kept = {"gone": None} if mode == "append" else {}
    assert rows(catalog, table) == [{"id": None, **kept, "v": 2}]


def test_a_table_of_format_version_1_changes_its_partitions(con: Any, catalog: Catalog) -> None:
    catalog.create_table(
        "shop.v1", Schema(NestedField(1, "region", StringType())), properties={"format-version": "1"}
    )
    publish(con, catalog, "v1", f"select {EU}", partition_by=["region"])
    publish(con, catalog, "v1", f"select {EU}", partition_by=["bucket(3, v)"])
    publish(con, catalog, "v1", f"select {EU}", partition_by=["region"])
    assert rows(catalog, "v1") == [{"region": "eu", "v": 1}]
    assert_filters_agree(catalog, "v1")


VALUES = {
    "int": "i::int",
    "bigint": "i::bigint",
    "float": "i::float",
    "double": "i::double",
    "decimal(5,2)": "i::decimal(5,2)",
    "decimal(9,2)": "i::decimal(9,2)",
    "varchar": "'s' || i",
    "date": "date '2026-01-01' + i::int",
    "timestamp": "timestamp '2026-01-01' + interval (i) hour",
    "struct x": "{'x': i::int}",
    "struct X, y": "{'y': 's' || i, 'X': i::int}",
    "struct long x": "{'x': i::bigint}",
    "list": "[i::int]",
    "list of structs": "[{'x': i::int}]",
}
PRIMITIVE = {name for name in VALUES if not name.startswith(("struct", "list"))}
NAMES = ["a", "A", "b", "c", "a_day", NFC, NFD, "é", "É"]


@st.composite
def publications(draw: st.DrawFn) -> tuple[dict[str, str], list[str] | None, list[str] | None, str]:
    """Draw a model's columns with their types, its partitions and order, and how it is written."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique_by=ascii_lower))
    columns = {name: draw(st.sampled_from(sorted(VALUES))) for name in names}
    flat = [f'"{name}"' for name, kind in columns.items() if kind in PRIMITIVE] or ['"a"']
    bucketable = [f'"{n}"' for n, k in columns.items() if k in PRIMITIVE - {"float", "double"}]
    times = [f'"{name}"' for name, kind in columns.items() if kind in ("date", "timestamp")]
    fields = [
        st.sampled_from([*flat, '"b"']),
        *(
            [st.builds("bucket({}, {})".format, st.integers(2, 3), st.sampled_from(bucketable))]
            if bucketable
            else []
        ),
        *(
            [st.builds("{}({})".format, st.sampled_from(["day", "month"]), st.sampled_from(times))]
            if times
            else []
        ),
    ]
    partition_by = draw(st.none() | st.lists(st.one_of(fields), max_size=2))
    sort_by = draw(st.none() | st.lists(st.sampled_from(flat), max_size=2))
    return columns, partition_by, sort_by, draw(st.sampled_from(["overwrite", "overwrite", "append"]))


def ascii_lower(name: str) -> str:
    """Return a name as DuckDB compares it."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)


class Reader:
    """Knows what a table holds by the rules alone: the rows of the last publication; with `append`, those before it as well."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def after(self, given: list[dict[str, Any]], names: list[str], mode: str) -> list[dict[str, Any]]:
        if mode == "overwrite":
            return given
        before = [{known(name, names): value for name, value in row.items()} for row in self.rows]
        return alike([*before, *given])


def known(name: str, names: list[str]) -> str:
    return name if name in names else next((n for n in names if n.lower() == name.lower()), name)


def alike(values: list[Any]) -> list[Any]:
    """Fill in what a struct lacks of the others of its column; names of its fields are those of the last one."""
    structs = [value for value in values if isinstance(value, dict)]
    lists = [value for value in values if isinstance(value, list)]
    if structs:
        names: dict[str, str] = {}
        for struct in structs:
            names |= {name.lower(): name for name in struct}
        columns = {
            lower: alike([next((v for n, v in s.items() if n.lower() == lower), None) for s in structs])
            for lower in names
        }
        made = iter(
            [{names[lower]: values[i] for lower, values in columns.items()} for i in range(len(structs))]
        )
        return [next(made) if isinstance(value, dict) else value for value in values]
    if lists:
        flat = iter(alike([one for each in lists for one in each]))
        return [[next(flat) for _ in value] if isinstance(value, list) else value for value in values]
    return values


def canonical(value: Any) -> Any:
    """Return a value without the order of its fields, and numbers as they compare."""
    if isinstance(value, dict):
        return sorted((name, canonical(each)) for name, each in value.items())
    if isinstance(value, list):
        return [canonical(each) for each in value]
    return (
        f"{float(value):.4f}"
        if hasattr(value, "is_integer") or type(value).__name__ == "Decimal"
        else repr(value)
    )


def multiset(found: list[dict[str, Any]]) -> list[str]:
    return sorted(repr(canonical(row)) for row in found)


def assert_random_changes(
    con: Any, catalog: Catalog, steps: list[tuple[dict[str, str], list[str] | None, list[str] | None, str]]
) -> None:
    table, reader = f"t{uuid.uuid4().hex}", Reader()
    for number, (columns, partition_by, sort_by, mode) in enumerate(steps):
        entries = ", ".join(f'{VALUES[kind]} as "{name}"' for name, kind in columns.items())
        sql = f"select {entries} from range({number}, {number + 2}) r(i)"
        stood = (
            catalog.load_table(f"shop.{table}").metadata if catalog.table_exists(f"shop.{table}") else None
        )
        try:
            publish(con, catalog, table, sql, partition_by=partition_by, sort_by=sort_by, mode=mode)
        except PublicationError as error:
            involved = {
                *columns,
                "a",
                "b",
                *(field.name for field in (stood.schema().fields if stood else ())),
            }
            assert any(repr(name) in str(error) or f"'{name}." in str(error) for name in involved), error
            if stood is not None:
                assert catalog.load_table(f"shop.{table}").metadata == stood
        else:
            reader.rows = reader.after(
                con.sql("select * from t").to_arrow_table().to_pylist(), list(columns), mode
            )
            if mode == "overwrite":
                assert [f.name for f in catalog.load_table(f"shop.{table}").schema().fields] == list(columns)
        if catalog.table_exists(f"shop.{table}"):
            assert multiset(rows(catalog, table)) == multiset(reader.rows)
            assert_filters_agree(catalog, table)


FIXED = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FIXED
@given(steps=st.lists(publications(), min_size=2, max_size=4))
def test_random_changes_give_the_rows_of_the_last_publication_or_name_a_column(
    con: Any, catalog: Catalog, steps: Any
) -> None:
    assert_random_changes(con, catalog, steps)


@pytest.mark.slow
@settings(parent=FIXED, max_examples=120)
@given(steps=st.lists(publications(), min_size=2, max_size=6))
def test_many_random_changes(con: Any, catalog: Catalog, steps: Any) -> None:
    assert_random_changes(con, catalog, steps)
