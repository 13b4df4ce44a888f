"""Partitions and sort order: what DuckDB writes is what Iceberg's own transforms say."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog

from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.errors import PublicationError
from floe_dagster.iceberg.layout import TableLayout
from floe_dagster.iceberg.publication import PublicationOptions, PublicationResult, publish_relation
from floe_dagster.iceberg.relation import RelationName


@pytest.fixture
def catalog(home: FloeHome) -> Catalog:
    return open_catalog(None, None, home=home)


@pytest.fixture
def con() -> Iterator[Any]:
    with duckdb.connect() as made:
        yield made


def publish(con: Any, catalog: Catalog, sql: str, **options: Any) -> PublicationResult:
    con.execute(f"create or replace table t as {sql}").fetchall()
    return publish_relation(
        con,
        RelationName("memory", "main", "t"),
        catalog=catalog,
        namespace="shop",
        table="t",
        snapshot_properties={},
        options=PublicationOptions(**options),
    )


SOURCES = {
    "int": ("(range * 7 - 50)::int", ["identity", "bucket(5, c)", "truncate(10, c)"]),
    "bigint": ("(range * 70000000000 - 50)::bigint", ["bucket(5, c)", "truncate(1000, c)"]),
    "decimal": ("(range * 1.37 - 20)::decimal(9, 2)", ["identity", "bucket(5, c)", "truncate(50, c)"]),
    "varchar": ("'ä' || range || '€'", ["identity", "bucket(5, c)", "truncate(2, c)"]),
    "date": (
        "date '1969-12-20' + (range * 9)::int",
        ["identity", "bucket(5, c)", "year(c)", "month(c)", "day(c)"],
    ),
    "timestamp": (
        "timestamp '1969-12-31 20:30:00' + interval (range * 50) minute",
        ["bucket(5, c)", "year(c)", "month(c)", "day(c)", "hour(c)"],
    ),
    "timestamptz": (
        "timestamptz '1969-12-31 20:30:00+00' + interval (range * 50) minute",
        ["bucket(5, c)", "year(c)", "month(c)", "day(c)", "hour(c)"],
    ),
}


@pytest.mark.parametrize(
    ("kind", "partition"), [(kind, partition) for kind, (_sql, all_) in SOURCES.items() for partition in all_]
)
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland"])
def test_partition_values_are_those_of_icebergs_transforms(
    con: Any, catalog: Catalog, kind: str, partition: str, zone: str
) -> None:
    con.execute(f"set timezone = '{zone}'")
    expression = SOURCES[kind][0]
    text = "c" if partition == "identity" else partition
    sql = f"select range as id, case when range = 13 then null else {expression} end as c from range(60)"
    result = publish(con, catalog, sql, layout=TableLayout.parse([text]))
    table = catalog.load_table("shop.t")
    field = table.spec().fields[0]
    source = table.schema().find_field("c")
    transform = field.transform.transform(source.field_type)
    seen = 0
    for task in table.scan().plan_files():
        values = (
            pq.read_table(task.file.file_path.removeprefix("file://"), partitioning=None)
            .column("c")
            .to_pylist()
        )
        for value in values:
            from pyiceberg.partitioning import _to_partition_representation

            internal = None if value is None else _to_partition_representation(source.field_type, value)
            assert transform(internal) == task.file.partition[0]
        seen += len(values)
    assert seen == result.rows == 60
    assert sorted(table.scan().to_arrow().column("id").to_pylist()) == list(range(60))


def test_files_are_sorted_and_say_so(con: Any, catalog: Catalog) -> None:
    sql = "select range as id, (range * 7919) % 1000 as k, range % 3 as p from range(50000)"
    publish(con, catalog, sql, layout=TableLayout.parse(["p"], ["k desc", "id asc"]))
    table = catalog.load_table("shop.t")
    assert [str(f.direction) for f in table.sort_order().fields] == ["DESC", "ASC"]
    for task in table.scan().plan_files():
        rows = pq.read_table(task.file.file_path.removeprefix("file://"), partitioning=None).to_pylist()
        keys = [(-row["k"], row["id"]) for row in rows]
        assert keys == sorted(keys)
        assert task.file.sort_order_id == table.sort_order().order_id


def test_a_layout_that_changes_concerns_new_files(con: Any, catalog: Catalog) -> None:
    sql = "select range as id, timestamp '2024-01-01' + interval (range) day as at from range(40)"
    publish(con, catalog, sql)
    result = publish(con, catalog, sql, layout=TableLayout.parse(["month(at)"], ["id"]))
    assert "partitioned by at_month" in result.evolved and "sorted by id" in result.evolved
    assert publish(con, catalog, sql, layout=TableLayout.parse(["month(at)"], ["id"])).evolved == ()
    result = publish(con, catalog, sql, layout=TableLayout.parse(["day(at)"]))
    assert result.files == 40 and "partitioned by at_day" in result.evolved
    result = publish(con, catalog, sql, layout=TableLayout.parse([]))
    assert result.files == 1
    assert sorted(catalog.load_table("shop.t").scan().to_arrow().column("id").to_pylist()) == list(range(40))


def test_properties_are_set_on_the_table(con: Any, catalog: Catalog) -> None:
    publish(
        con,
        catalog,
        "select 1 as a",
        layout=TableLayout.parse(properties={"write.metadata.metrics.default": "full"}),
    )
    result = publish(con, catalog, "select 1 as a", layout=TableLayout.parse(properties={"comment": "x"}))
    assert (
        catalog.load_table("shop.t").properties["comment"] == "x" and "properties comment" in result.evolved
    )


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        (["nothing"], "'nothing', which the model does not have; it has: id, at"),
        (["hour(id)"], "column 'id' is long, which hour cannot partition"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused_by_name(
    con: Any, catalog: Catalog, layout: list[str], said: str
) -> None:
    sql = "select range as id, timestamp '2024-01-01' as at from range(3)"
    with pytest.raises(PublicationError, match="partition") as refused:
        publish(con, catalog, sql, layout=TableLayout.parse(layout))
    assert said in str(refused.value) and not catalog.table_exists("shop.t")
    publish(con, catalog, sql)
    with pytest.raises(PublicationError, match="partition"):
        publish(con, catalog, sql, layout=TableLayout.parse(layout))


def test_too_many_partitions_are_refused(con: Any, catalog: Catalog) -> None:
    with pytest.raises(PublicationError, match="more than 2,000 partitions"):
        publish(con, catalog, "select range as id from range(3000)", layout=TableLayout.parse(["id"]))
    assert not catalog.table_exists("shop.t")


@pytest.mark.parametrize("number", range(3))
def test_upserts_agree_with_a_merge_in_sql(con: Any, catalog: Catalog, number: int) -> None:
    """Many small upserts against the same statements in DuckDB."""
    import random

    chance = random.Random(number)
    con.execute("create table model (id bigint, part bigint, v varchar)")
    layout = TableLayout.parse(["bucket(3, part)"]) if number else TableLayout()
    for step in range(8):
        first, size = chance.randrange(100), chance.randrange(1, 40)
        stamp = chance.choice(["same", uuid.uuid4().hex])
        rows = f"select range as id, range % 7 as part, '{stamp}' || range as v from range({first}, {first + size})"
        result = publish(con, catalog, rows, mode="upsert", key=("id", "part"), layout=layout)
        before = con.execute("select count(*) from model").fetchall()[0][0]
        con.execute("delete from model where (id, part) in (select id, part from t)")
        con.execute("insert into model select * from t")
        after = con.execute("select count(*) from model").fetchall()[0][0]
        if step:
            assert result.inserted - (result.deleted or 0) == after - before
        published = sorted(
            tuple(r.values()) for r in catalog.load_table("shop.t").scan().to_arrow().to_pylist()
        )
        assert published == sorted(con.execute("select * from model").fetchall())


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("select 1 as id from range(2)", "is not unique"),
        ("select null::int as id", "is null"),
        ("select 1 as other", "names 'id'; the model has: other"),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_a_key_that_is_none_is_refused(con: Any, catalog: Catalog, sql: str, said: str, exists: bool) -> None:
    if exists:
        publish(con, catalog, "select 7 as id")
    with pytest.raises(PublicationError, match=said):
        publish(con, catalog, sql, mode="upsert", key=("id",))
    assert catalog.table_exists("shop.t") == exists


@pytest.mark.parametrize("folder", ["with space", "ünïcode", "100%25"])
def test_a_home_of_any_name(con: Any, tmp_path: Any, folder: str) -> None:
    home = FloeHome(tmp_path / folder)
    catalog = open_catalog(None, None, home=home)
    publish(con, catalog, "select 1 as a, 'ä/b c' as p", layout=TableLayout.parse(["p"]))
    assert catalog.load_table("shop.t").scan().to_arrow().to_pylist() == [{"a": 1, "p": "ä/b c"}]
    assert [path.name for path in tmp_path.iterdir()] == [folder]


def test_a_home_that_no_location_can_have(tmp_path: Any) -> None:
    from floe_dagster.iceberg.errors import NotUsableError

    with pytest.raises(NotUsableError, match=r"\? or #"):
        open_catalog(None, None, home=FloeHome(tmp_path / "a#b"))
