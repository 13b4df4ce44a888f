"""The life of a published table: schema changes, conflicts, crashes, full disks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pyiceberg.catalog import Catalog

from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.errors import CatalogError, PublicationError
from floe_dagster.iceberg.publication import PublicationResult, RelationName, find_snapshot, publish_relation
from floe_dagster.iceberg.restore import restore_relation
from floe_dagster.iceberg.show import show_table


@pytest.fixture
def catalog(home: FloeHome) -> Catalog:
    return open_catalog(None, None, home=home)


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as made:
        yield made


def publish(con: Any, catalog: Catalog, sql: str, **properties: str) -> PublicationResult:
    con.execute(f"create or replace table t as {sql}").fetchall()
    return publish_relation(
        con,
        RelationName("memory", "main", "t"),
        catalog=catalog,
        namespace="shop",
        table="t",
        snapshot_properties=properties,
        column_docs={"a": "The a."},
    )


def rows(catalog: Catalog) -> list[dict[str, Any]]:
    return catalog.load_table("shop.t").scan().to_arrow().to_pylist()


def data_files(home: FloeHome) -> set[Path]:
    return set((home.warehouse_dir / "shop").rglob("*.parquet"))


def test_a_snapshot_carries_its_properties_and_columns_their_descriptions(con: Any, catalog: Catalog) -> None:
    result = publish(con, catalog, "select 1 as a", **{"floe.product": "shop", "floe.source-digest": "x"})
    table = catalog.load_table("shop.t")
    assert find_snapshot(table, {"floe.product": "shop", "floe.source-digest": "x"}) == result.snapshot_id
    assert find_snapshot(table, {"floe.product": "other"}) is None
    assert table.schema().find_field("a").doc == "The a."
    assert result.created and result.rows == 1 and result.files == 1 and result.bytes > 0


def test_a_second_publication_replaces_the_first_in_one_snapshot(con: Any, catalog: Catalog) -> None:
    publish(con, catalog, "select 1 as a")
    result = publish(con, catalog, "select 2 as a")
    assert rows(catalog) == [{"a": 2}] and not result.created
    assert len(catalog.load_table("shop.t").metadata.snapshots) == 2


def test_manifests_do_not_pile_up_with_publications(con: Any, catalog: Catalog) -> None:
    for number in range(5):
        publish(con, catalog, f"select {number} as a")
    table = catalog.load_table("shop.t")
    current = table.current_snapshot()
    assert current is not None
    # One names the file that came, one the file that went; those of earlier publications name nothing any more.
    assert len(current.manifests(table.io)) == 2
    assert rows(catalog) == [{"a": 4}]
    assert [len(list(table.scan(snapshot_id=s.snapshot_id).plan_files())) for s in table.snapshots()] == [
        1
    ] * 5


def test_from_rows_to_none(con: Any, catalog: Catalog) -> None:
    publish(con, catalog, "select 1 as a")
    assert publish(con, catalog, "select 1 as a where false").rows == 0
    assert rows(catalog) == []
    publish(con, catalog, "select 3 as a")
    assert rows(catalog) == [{"a": 3}]


@pytest.mark.parametrize(
    ("before", "after", "expected", "said"),
    [
        ("1 as a", "1 as a, 'x' as b", {"a": 1, "b": "x"}, "added b string"),
        ("1 as a, 2 as b", "1 as a", {"a": 1}, "dropped b"),
        ("1::int as a", "3000000000 as a", {"a": 3_000_000_000}, "widened a from int to long"),
        ("1::float as a", "0.1::double as a", {"a": 0.1}, "widened a from float to double"),
        ("1 as a, 2 as b", "2 as b, 1 as a", {"a": 1, "b": 2}, ""),
        ("{'x': 1} as a", "{'x': 1, 'y': 2} as a", {"a": {"x": 1, "y": 2}}, ""),
        ("1 as a", "1 as A", None, "renamed a to A"),
    ],
)
def test_schema_changes_that_iceberg_allows(
    con: Any, catalog: Catalog, before: str, after: str, expected: dict[str, Any] | None, said: str
) -> None:
    publish(con, catalog, f"select {before}")
    result = publish(con, catalog, f"select {after}")
    assert said in ", ".join(result.evolved)
    assert rows(catalog) == [expected or {"A": 1}]


def test_decimals_grow_in_precision(con: Any, catalog: Catalog) -> None:
    publish(con, catalog, "select 1.50::decimal(5, 2) as a")
    publish(con, catalog, "select 12345.50::decimal(9, 2) as a")
    assert str(rows(catalog)[0]["a"]) == "12345.50"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("3000000000 as a", "1::int as a"),
        ("1 as a", "'x' as a"),
        ("1.5::decimal(9, 2) as a", "1.5::decimal(9, 3) as a"),
        ("'x' as a", "{'x': 1} as a"),
        ("[1] as a", "1 as a"),
        ("date '2024-01-01' as a", "timestamp '2024-01-01' as a"),
    ],
)
def test_schema_changes_that_iceberg_forbids_are_refused_and_the_table_stands(
    con: Any, catalog: Catalog, home: FloeHome, before: str, after: str
) -> None:
    publish(con, catalog, f"select {before}")
    old, files = rows(catalog), data_files(home)
    with pytest.raises(PublicationError) as refused:
        publish(con, catalog, f"select {after}")
    assert "shop.t" in str(refused.value) and "'a'" in str(refused.value)
    assert rows(catalog) == old and data_files(home) == files


def test_a_column_that_comes_back_does_not_bring_its_old_values(con: Any, catalog: Catalog) -> None:
    publish(con, catalog, "select 1 as a, 'old' as b")
    first = catalog.load_table("shop.t").schema().find_field("b").field_id
    publish(con, catalog, "select 2 as a")
    publish(con, catalog, "select 3 as a, null::varchar as b")
    table = catalog.load_table("shop.t")
    assert table.schema().find_field("b").field_id != first
    old = table.metadata.snapshots[0].snapshot_id
    assert rows(catalog) == [{"a": 3, "b": None}]
    assert table.scan(snapshot_id=old).to_arrow().to_pylist() == [{"a": 1, "b": "old"}]


def test_data_files_carry_field_ids_nested_ones_too(con: Any, catalog: Catalog, home: FloeHome) -> None:
    import pyarrow.parquet as pq

    publish(con, catalog, "select 1 as a, [{'x': 1}] as b")
    (file,) = data_files(home)
    text = str(pq.ParquetFile(file).schema)
    assert all(f"field_id={number} " in text for number in range(1, 5))


def test_a_table_is_restored_as_it_was_published(con: Any, catalog: Catalog) -> None:
    publish(con, catalog, "select i as a, 'row ' || i as b from range(5000) as rows(i)")
    count = restore_relation(
        con, RelationName("memory", "back", "t"), catalog=catalog, namespace="shop", table="t"
    )
    difference = con.execute("select count(*) from (from t except from back.t)").fetchall()
    assert count == 5000 and difference == [(0,)]


def test_rows_and_snapshots_for_people(con: Any, catalog: Catalog) -> None:
    publish(con, catalog, "select i as a from range(20) as rows(i)", **{"floe.dagster-run-id": "r1"})
    publish(con, catalog, "select i as a from range(30) as rows(i)", **{"floe.dagster-run-id": "r2"})
    view = show_table(catalog, "shop", "t", limit=3)
    assert view.columns == ["a"] and len(view.rows) == 3
    assert [(s["rows"], s["run"]) for s in view.snapshots] == [(30, "r2"), (20, "r1")]


def _publish_often(home: str, first: int) -> None:
    catalog = open_catalog(None, None, home=FloeHome(Path(home)))
    with duckdb.connect() as con:
        for number in range(first, first + 10):
            publish(con, catalog, f"select {number} as a from range(100)")


def test_two_processes_publish_the_same_table(catalog: Catalog, home: FloeHome) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_publish_often, args=(str(home.path), n)) for n in (0, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(rows(catalog)) == 100 and len({row["a"] for row in rows(catalog)}) == 1
    assert len(catalog.load_table("shop.t").metadata.snapshots) == 20


KILLED = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
import duckdb
from floe_dagster.home import FloeHome
from tests.integration.iceberg.test_tables import open_catalog, publish
catalog = open_catalog(None, None, home=FloeHome(Path({home!r})))
with duckdb.connect() as con:
    number = 0
    while True:
        number += 1
        publish(con, catalog, f"select {{number}} as a from range(200000)")
        print(number, flush=True)
"""


@pytest.mark.parametrize("delay", [0.01, 0.05, 0.12, 0.3])
def test_a_kill_leaves_a_whole_snapshot(catalog: Catalog, home: FloeHome, delay: float) -> None:
    code = KILLED.format(path=sys.path, home=str(home.path))
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert worker.stdout is not None and worker.stdout.readline()
    time.sleep(delay)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    values = {row["a"] for row in rows(catalog)}
    assert len(rows(catalog)) == 200_000 and len(values) == 1
    with duckdb.connect() as con:
        publish(con, catalog, "select 0 as a")
    assert rows(catalog) == [{"a": 0}]


FULL = """
import resource, signal, sys
sys.path[:0] = {path!r}
from pathlib import Path
import duckdb
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.errors import CatalogError
from tests.integration.iceberg.test_tables import open_catalog, publish
catalog = open_catalog(None, None, home=FloeHome(Path({home!r})))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
with duckdb.connect() as con:
    try:
        publish(con, catalog, "select (hash(i) % 1000000)::int as a from range(3000000) as rows(i)")
    except CatalogError as error:
        print(error)
"""


def test_a_full_disk_is_named_and_leaves_the_last_snapshot(
    con: Any, catalog: Catalog, home: FloeHome
) -> None:
    publish(con, catalog, "select 1 as a")
    files = data_files(home)
    code = FULL.format(path=sys.path, home=str(home.path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "shop.t could not be written" in done.stdout and "File too large" in done.stdout, done.stderr
    assert rows(catalog) == [{"a": 1}] and data_files(home) == files


def test_a_warehouse_that_is_no_folder(home: FloeHome) -> None:
    home.path.mkdir(parents=True)
    home.warehouse_dir.write_text("in the way")
    with pytest.raises(CatalogError, match="warehouse"):
        open_catalog(None, None, home=home)


def test_a_catalog_file_that_is_none(home: FloeHome) -> None:
    home.path.mkdir(parents=True)
    home.catalog_db.write_text("this is no database, but long enough to look like a file with a header")
    with pytest.raises(CatalogError, match="catalog cannot be opened"):
        open_catalog(None, None, home=home)
