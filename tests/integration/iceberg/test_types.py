"""DuckDB's types in Iceberg: right, or refused by name."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.catalog import Catalog

from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.errors import PublicationError
from floe_dagster.iceberg.publication import PublicationResult, RelationName, publish_relation
from floe_dagster.iceberg.restore import restore_relation
from floe_dagster.iceberg.types import quoted

UTC = dt.UTC


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return open_catalog(None, None, home=FloeHome(tmp_path_factory.mktemp("types")))


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as made:
        made.execute("set timezone = 'Europe/Berlin'")
        yield made


_count = iter(range(10**6))


def publish(con: Any, catalog: Catalog, sql: str, table: str | None = None) -> PublicationResult:
    table = table or f"t{next(_count)}"
    con.execute(f"create or replace table source as {sql}").fetchall()
    return publish_relation(
        con,
        RelationName("memory", "main", "source"),
        catalog=catalog,
        namespace="types",
        table=table,
        snapshot_properties={},
    )


def read(catalog: Catalog, result: PublicationResult) -> list[dict[str, Any]]:
    return catalog.load_table(result.table).scan().to_arrow().to_pylist()


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("true", "boolean", True),
        ("(-128)::tinyint", "int", -128),
        ("32767::smallint", "int", 32767),
        ("(-2147483648)::integer", "int", -(2**31)),
        ("255::utinyint", "int", 255),
        ("65535::usmallint", "int", 65535),
        ("4294967295::uinteger", "long", 2**32 - 1),
        ("9223372036854775807", "long", 2**63 - 1),
        ("18446744073709551615::ubigint", "decimal(20, 0)", decimal.Decimal(2**64 - 1)),
        ("10000000000000000000000000000000000000::hugeint", "decimal(38, 0)", decimal.Decimal(10) ** 37),
        ("1.5::float", "float", 1.5),
        ("0.1::double", "double", 0.1),
        ("12.340::decimal(7, 3)", "decimal(7, 3)", decimal.Decimal("12.340")),
        ("'99999999999999999999999999999999999.999'::decimal(38, 3)", "decimal(38, 3)",
         decimal.Decimal("99999999999999999999999999999999999.999")),
        ("'Größe 😀 \x7f'", "string", "Größe 😀 \x7f"),
        ("''", "string", ""),
        ("'b'::enum('a', 'b')", "string", "b"),
        ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "string", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("'\\x00\\xFF'::blob", "binary", b"\x00\xff"),
        ("date '0001-01-01'", "date", dt.date(1, 1, 1)),
        ("date '9999-12-31'", "date", dt.date(9999, 12, 31)),
        ("time '23:59:59.999999'", "time", dt.time(23, 59, 59, 999999)),
        ("timestamp '2024-02-29 12:00:00.123456'", "timestamp", dt.datetime(2024, 2, 29, 12, 0, 0, 123456)),
        ("timestamp_s '2024-02-29 12:00:00'", "timestamp", dt.datetime(2024, 2, 29, 12)),
        ("timestamp_ms '2024-02-29 12:00:00.123'", "timestamp", dt.datetime(2024, 2, 29, 12, 0, 0, 123000)),
        ("timestamptz '2024-07-01 12:00:00+02'", "timestamptz", dt.datetime(2024, 7, 1, 10, tzinfo=UTC)),
        ("[1, null, 3]", "list<int>", [1, None, 3]),
        ("[]::integer[]", "list<int>", []),
        ("[[1], null, []]", "list<list<int>>", [[1], None, []]),
        ("array_value(1, 2)", "list<int>", [1, 2]),
        ("{'a': 1, 'b c': {'d': [date '2024-01-01']}}", "struct<", {"a": 1, "b c": {"d": [dt.date(2024, 1, 1)]}}),
        ("{'a': null::int}", "struct<", {"a": None}),
        ("map {'k': 1, 'l': null}", "map<string, int>", [("k", 1), ("l", None)]),
    ],
)  # fmt: skip
def test_a_value_comes_back(con: Any, catalog: Catalog, value: str, kind: str, expected: Any) -> None:
    result = publish(con, catalog, f"select {value} as v union all select null")
    (column,) = result.columns
    assert column[1].startswith(kind)
    rows = [row["v"] for row in read(catalog, result)]
    assert sorted(rows, key=lambda v: v is None) == [expected, None]


def test_json_is_text(con: Any, catalog: Catalog) -> None:
    result = publish(con, catalog, """select '{"a": [1, 2]}'::json as v""")
    assert json.loads(read(catalog, result)[0]["v"]) == {"a": [1, 2]}


def test_an_empty_map_of_structs(con: Any, catalog: Catalog) -> None:
    # Without a null beside it: PyIceberg's reader makes an empty map of one, though the file has it right.
    result = publish(con, catalog, "select map {}::map(varchar, struct(x integer)) as v")
    assert read(catalog, result) == [{"v": []}]


def test_not_a_number_and_infinity(con: Any, catalog: Catalog) -> None:
    result = publish(con, catalog, "select unnest(['nan', 'inf', '-inf']::double[]) as v")
    assert [str(row["v"]) for row in read(catalog, result)] == ["nan", "inf", "-inf"]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("interval 1 day", "INTERVAL"),
        ("timestamp_ns '2024-01-01'", "TIMESTAMP_NS"),
        ("timetz '12:00:00+01'", "TIME WITH TIME ZONE"),
        ("'101'::bit", "BIT"),
        ("union_value(a := 1)", "UNION"),
        ("[interval 1 day]", "INTERVAL"),
        ("{'deep': [union_value(a := 1)]}", "UNION"),
    ],
)
def test_what_iceberg_has_no_type_for_is_refused_by_name(
    con: Any, catalog: Catalog, value: str, name: str
) -> None:
    with pytest.raises(PublicationError) as refused:
        publish(con, catalog, f"select 1 as fine, {value} as bad", "refused")
    assert "types.refused" in str(refused.value) and "'bad'" in str(refused.value)
    assert name in str(refused.value)
    assert not catalog.table_exists("types.refused")


@pytest.mark.parametrize(
    "value",
    [
        "170141183460469231731687303715884105727::hugeint",
        "date '290000-01-01'",
        "'infinity'::timestamp",
        "'-infinity'::date",
    ],
)
def test_a_value_beyond_icebergs_range_is_refused_and_the_table_stays(
    con: Any, catalog: Catalog, value: str
) -> None:
    table = f"range{next(_count)}"
    first = publish(con, catalog, f"select null::{'hugeint' if 'hugeint' in value else 'date' if 'date' in value else 'timestamp'} as v", table)  # fmt: skip
    with pytest.raises(PublicationError, match=r"types\.range"):
        publish(con, catalog, f"select {value} as v", table)
    assert [row["v"] for row in read(catalog, first)] == [None]


@pytest.mark.parametrize(
    "name",
    ["Größe", "a b", 'quote"d', "select", "a.b", "-", "x" * 200, "element", "key", "__duckdb_field_id",
     "line\nbreak", "100%", "日本", "it's", "{brace}", "UPPER"],
)  # fmt: skip
def test_column_names(con: Any, catalog: Catalog, name: str) -> None:
    sql = f"select 1 as {quoted(name)}, [{{{quoted(name)}: 2}}] as nested"
    try:
        result = publish(con, catalog, sql)
    except PublicationError as refused:
        assert repr(name) in str(refused) or name in str(refused)
        return
    assert read(catalog, result) == [{name: 1, "nested": [{name: 2}]}]
    # A second look through another reader, by field ids alone.
    restore_relation(
        con,
        RelationName("memory", "restored", result.table.partition(".")[2]),
        catalog=catalog,
        namespace="types",
        table=result.table.partition(".")[2],
    )


def test_an_empty_table_has_its_columns(con: Any, catalog: Catalog) -> None:
    result = publish(con, catalog, "select 1 as a, [{'x': 1}] as b where false")
    table = catalog.load_table(result.table)
    assert result.rows == 0 and table.scan().to_arrow().num_rows == 0
    assert [name for name, _kind in result.columns] == ["a", "b"]
    assert table.current_snapshot() is not None


VALUES = {
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False),
    "varchar": st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")),
    "boolean": st.booleans(),
    "date": st.dates(),
    "timestamp": st.datetimes(),
    "blob": st.binary(),
    "decimal(18, 4)": st.decimals(-(10**13), 10**13, places=4),
    "bigint[]": st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)),
    "struct(a varchar, b boolean)": st.fixed_dictionaries(
        {"a": st.none() | st.text("abc'\""), "b": st.none() | st.booleans()}
    ),
}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_table_comes_back_and_can_be_restored(catalog: Catalog, data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4))
    rows = data.draw(
        st.lists(st.tuples(st.integers(0, 10**6), *(st.none() | VALUES[kind] for kind in kinds)), max_size=6)
    )
    with duckdb.connect() as con:
        columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(kinds))
        con.execute(f"create table data (position bigint, {columns})").fetchall()
        for row in rows:
            con.execute(f"insert into data values ({', '.join('?' * len(row))})", list(row)).fetchall()
        names = ["position", *(f"c{number}" for number in range(len(kinds)))]
        before = con.execute("select * from data order by all").fetchall()
        result = publish(con, catalog, "select * from data")
        read_back = read(catalog, result)
        table = result.table.partition(".")[2]
        restore_relation(
            con, RelationName("memory", "main", table), catalog=catalog, namespace="types", table=table
        )
        after = con.execute(f"select * from {quoted(table)} order by all").fetchall()
    assert after == before
    key = [[repr(row[name]) for name in names] for row in read_back]
    assert sorted(key) == sorted([repr(value) for value in row] for row in before)
