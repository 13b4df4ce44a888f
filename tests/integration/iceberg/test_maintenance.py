"""Maintenance never takes what somebody needs, and takes everything else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pyiceberg.catalog import Catalog

from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.errors import CatalogError, PublicationError
from floe_dagster.iceberg.files import comparable, reachable_files
from floe_dagster.iceberg.layout import TableLayout
from floe_dagster.iceberg.maintenance import (
    Rules,
    TableMaintenance,
    drop_retired,
    retired_tables,
    same_content,
)
from floe_dagster.iceberg.publication import PublicationOptions, PublicationResult, publish_relation
from floe_dagster.iceberg.relation import RelationName

DAYS = "select range as id, timestamp '2024-01-01' + interval (range) day as at from range(20)"


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
        options=PublicationOptions(product="shop", **options),
    )


def ids(catalog: Catalog) -> list[int]:
    return sorted(catalog.load_table("shop.t").scan().to_arrow().column("id").to_pylist())


def lying(home: FloeHome) -> set[str]:
    return {str(path) for path in (home.warehouse_dir / "shop" / "t").rglob("*") if path.is_file()}


def needed(catalog: Catalog) -> set[str]:
    table = catalog.load_table("shop.t")
    return set(reachable_files(table.metadata, table.metadata_location, table.io))


def maintenance(catalog: Catalog, rules: Rules, **options: Any) -> TableMaintenance:
    return TableMaintenance(catalog, "shop", "t", rules, **options)


@pytest.mark.parametrize("partition", [None, ["month(at)"], ["day(at)"]])
@pytest.mark.parametrize("kind", ["timestamp", "timestamptz", "date"])
def test_rows_expire_after_their_time(
    con: Any, catalog: Catalog, partition: list[str] | None, kind: str
) -> None:
    con.execute("set timezone = 'UTC'")
    if kind == "date" and partition == ["day(at)"]:
        partition = ["at"]
    publish(
        con,
        catalog,
        f'select id, cast("at" as {kind}) as "at" from ({DAYS})',
        layout=TableLayout.parse(partition),
    )
    publish(con, catalog, f"select 99::bigint as id, null::{kind} as at", mode="append")
    now = datetime(2024, 1, 15, tzinfo=UTC)
    rules = Rules(ttl_hours=24, retention_days=5)
    assert rules.row_age() == timedelta(days=5)
    preview = maintenance(catalog, rules, expire_by="at", now=now, dry_run=True).run()
    assert preview.rows_deleted == 9 and len(ids(catalog)) == 21
    report = maintenance(catalog, rules, expire_by="at", now=now)
    report.expire_rows()
    assert report.report.rows_deleted == 9
    # Null is no time, so it does not expire.
    assert ids(catalog) == [*range(9, 20), 99]
    again = maintenance(catalog, rules, expire_by="at", now=now)
    again.expire_rows()
    assert again.report.rows_deleted == 0


def test_without_a_time_to_live_nothing_expires(con: Any, catalog: Catalog) -> None:
    publish(con, catalog, DAYS)
    report = maintenance(catalog, Rules(retention_days=1), expire_by="at").run()
    assert report.rows_deleted == 0 and len(ids(catalog)) == 20


def test_a_column_that_is_no_time_is_refused(con: Any, catalog: Catalog) -> None:
    publish(con, catalog, DAYS)
    with pytest.raises(PublicationError, match="'id', which is long"):
        maintenance(catalog, Rules(ttl_hours=1), expire_by="id").run()
    with pytest.raises(PublicationError, match="'gone', which does not exist"):
        maintenance(catalog, Rules(ttl_hours=1), expire_by="gone").run()


def test_small_files_become_one_and_the_rows_stay(con: Any, catalog: Catalog) -> None:
    for number in range(7):
        publish(con, catalog, f"select {number}::bigint as id", mode="append")
    before = catalog.load_table("shop.t").current_snapshot()
    assert before is not None
    preview = maintenance(catalog, Rules(), dry_run=True).run()
    assert (preview.files_before, preview.files_compacted) == (7, 7)
    report = maintenance(catalog, Rules()).run()
    assert (report.files_before, report.files_after, report.files_compacted) == (7, 1, 7)
    assert ids(catalog) == list(range(7))
    table = catalog.load_table("shop.t")
    assert same_content(table, before.snapshot_id)
    publish(con, catalog, "select 8::bigint as id", mode="append")
    assert not same_content(catalog.load_table("shop.t"), before.snapshot_id)
    assert maintenance(catalog, Rules()).run().files_compacted == 0


def test_snapshots_expire_and_only_their_files_go(con: Any, catalog: Catalog, home: FloeHome) -> None:
    for number in range(6):
        publish(con, catalog, f"select range as id from range({number + 1})")
    later = datetime.now(UTC) + timedelta(days=30)
    kept = maintenance(catalog, Rules(retention_days=60, keep_last=2), now=later)
    kept.expire_snapshots()
    assert kept.report.snapshots_expired == 0, "younger than the retention"
    table = catalog.load_table("shop.t")
    tagged = table.metadata.snapshots[1].snapshot_id
    table.manage_snapshots().create_tag(tagged, "audit").commit()
    preview = maintenance(catalog, Rules(retention_days=1, keep_last=2), now=later, dry_run=True)
    preview.expire_snapshots()
    before = lying(home)
    report = maintenance(catalog, Rules(retention_days=1, keep_last=2), now=later)
    report.expire_snapshots()
    assert report.report.snapshots_expired == preview.report.snapshots_expired == 3
    assert report.report.bytes_freed > 0 and report.report.not_removed == 0
    table = catalog.load_table("shop.t")
    assert len(table.metadata.snapshots) == 3
    assert {path for path in needed(catalog) if not Path(path).exists()} == set()
    for snapshot in table.metadata.snapshots:
        table.scan(snapshot_id=snapshot.snapshot_id).to_arrow()
    assert len(lying(home)) < len(before)
    # What expiry leaves are metadata files that the table's log still names.
    assert {path for path in lying(home) - needed(catalog) if path.endswith((".parquet", ".avro"))} == set()


def test_orphans_go_and_nothing_that_lives(con: Any, catalog: Catalog, home: FloeHome) -> None:
    publish(con, catalog, DAYS, layout=TableLayout.parse(["day(at)"]))
    table_folder = home.warehouse_dir / "shop" / "t"
    old, young = (
        table_folder / "data" / "at_day=2024-01-01" / "old orphan.parquet",
        table_folder / "data" / "young.parquet",
    )
    for path in (old, young, table_folder / "metadata" / "old.avro"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left over")
        if "old" in path.name:
            os.utime(path, (time.time() - 10 * 86_400,) * 2)
    elsewhere = table_folder / "notes.txt"
    elsewhere.write_text("somebody's")
    os.utime(elsewhere, (0, 0))
    live = needed(catalog)
    for path in live:
        os.utime(path, (0, 0))  # Their age does not matter.
    preview = maintenance(catalog, Rules(), dry_run=True).run()
    assert (preview.orphans_removed, preview.bytes_freed) == (2, 18) and old.exists()
    report = maintenance(catalog, Rules()).run()
    assert (report.orphans_removed, report.bytes_freed) == (2, 18)
    assert not old.exists() and young.exists() and elsewhere.exists()
    assert all(Path(path).exists() for path in live) and len(ids(catalog)) == 20


def test_orphans_of_a_day_stay_whatever_is_asked(con: Any, catalog: Catalog) -> None:
    publish(con, catalog, DAYS)
    with pytest.raises(ValueError, match="or more"):
        maintenance(catalog, Rules(orphan_age=timedelta(hours=1))).remove_orphans()


def test_a_table_inside_another_ones_folder_is_safe(con: Any, catalog: Catalog, home: FloeHome) -> None:
    publish(con, catalog, DAYS)
    table = catalog.load_table("shop.t")
    inner = catalog.create_table("shop.inner", table.schema(), location=f"{table.location()}/data/inner")
    inner.append(table.scan().to_arrow())
    for path in (home.warehouse_dir / "shop" / "t").rglob("*"):
        os.utime(path, (0, 0))
    report = maintenance(catalog, Rules()).run()
    assert report.orphans_removed == 0 and "another table lies inside" in report.notes[0]
    assert catalog.load_table("shop.inner").scan().to_arrow().num_rows == 20


def test_retired_tables_are_reported_and_dropped_on_request_only(
    con: Any, catalog: Catalog, home: FloeHome
) -> None:
    publish(con, catalog, DAYS)
    assert retired_tables(catalog, "shop", {"t"}) == []
    [retired] = retired_tables(catalog, "shop", {"other"})
    assert retired["table"] == "t" and retired["rows"] == 20 and retired["product"] == "shop"
    with pytest.raises(CatalogError, match="belongs to shop, not to other"):
        drop_retired(catalog, "shop", "t", "other")
    assert len(ids(catalog)) == 20
    dropped = drop_retired(catalog, "shop", "t", "shop")
    assert dropped["files"] >= 3 and not catalog.table_exists("shop.t")
    assert [path for path in lying(home) if path.endswith(".parquet")] == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("file:///a/b c", "/a/b c"),
        ("file:/a/b", "/a/b"),
        ("s3a://bucket/a%20b", "s3://bucket/a%20b"),
    ],
)
def test_two_spellings_of_one_file_are_equal(one: str, other: str) -> None:
    assert comparable(one) == comparable(other)
