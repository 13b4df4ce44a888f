"""Runs of a product on a real Trino: what is published, what is withheld, what is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pyiceberg.table.snapshots import Operation

from tests.trino.shops import ORDERS, Shop, metadata, said


@pytest.mark.core
def test_a_product_is_published_extended_and_leaves_nothing_behind(on_trino: Shop) -> None:
    first = on_trino.run()
    assert first.success, said(first)
    dbt_log = on_trino.home.logs_dir("shop") / "dbt.log"
    assert "partial parsing" not in dbt_log.read_text()
    shown = metadata(first)
    assert set(shown) == {"raw_orders", "orders", "recent", "daily", "totals", "growing"}
    assert [row["amount"] for row in on_trino.rows("orders")] == [10, 20, 30, 40, 50, 60]
    assert on_trino.rows("daily") == [{"n": 4, "amount": 180}]
    assert on_trino.clones() == []
    table = on_trino.catalog.load_table(("shop", "orders"))
    assert [field.name for field in table.spec().fields] == ["at_month"]
    assert table.properties["floe.product"] == "shop"
    assert table.properties["write.target-file-size-bytes"] == "1048576"
    assert [(field.source_id, field.direction.name) for field in table.sort_order().fields] == [
        (table.schema().find_field("id").field_id, "DESC")
    ]
    assert table.schema().find_field("id").doc == "Number of the order."
    snapshot = table.current_snapshot()
    assert snapshot is not None and snapshot.summary is not None
    assert snapshot.summary["floe.dagster-run-id"] == first.run_id
    assert shown["orders"]["iceberg/snapshot_id"] == str(snapshot.snapshot_id)
    assert shown["orders"]["dagster/row_count"] == 6 and shown["raw_orders"]["dagster/row_count"] == 6
    assert shown["orders"]["trino/query_id"] in shown["orders"]["trino/query"]
    assert shown["orders"]["trino/cpu_seconds"] > 0 and shown["orders"]["trino/splits"] > 0
    lineage = shown["daily"]["dagster/column_lineage"].deps_by_column
    assert [(dep.asset_key.path[-1], dep.column_name) for dep in lineage["amount"]] == [("recent", "amount")]

    second = on_trino.run(config={"vars": {"factor": 2}})
    assert second.success, said(second)
    # What a run is given as vars may change what dbt builds.
    assert "partial parsing" in dbt_log.read_text()
    again = on_trino.catalog.load_table(("shop", "orders"))
    assert again.metadata.table_uuid == table.metadata.table_uuid
    assert [field.name for field in again.spec().fields] == ["at_month"]
    assert again.sort_order().fields == table.sort_order().fields
    assert again.properties["write.target-file-size-bytes"] == "1048576"
    assert again.schema().find_field("id").doc == "Number of the order."
    current = again.current_snapshot()
    assert current is not None and current.parent_snapshot_id == snapshot.snapshot_id
    # Who reads only what snapshots append must not take rows for new that replace others.
    assert current.summary is not None and current.summary.operation == Operation.OVERWRITE
    assert current.summary["deleted-records"] == current.summary["added-records"] == "6"
    grown = on_trino.catalog.load_table(("shop", "growing")).current_snapshot()
    assert grown is not None and grown.summary is not None and grown.summary.operation == Operation.APPEND
    assert [row["amount"] for row in on_trino.rows("orders")] == [20, 40, 60, 80, 100, 120]
    # Merged: what the increment does not touch stays.
    factors = {row["id"]: row["factor"] for row in on_trino.rows("totals")}
    assert factors == {1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 2}
    assert metadata(second)["totals"]["dagster/row_count"] == 6
    assert on_trino.rows("growing") == [{"id": 6}, {"id": 6}]
    assert on_trino.clones() == []
    # What was read before is still there to be read.
    before = again.scan(snapshot_id=snapshot.snapshot_id).to_arrow().column("amount").to_pylist()
    assert sorted(before) == [10, 20, 30, 40, 50, 60]


@pytest.mark.core
def test_what_fails_its_test_never_gets_its_published_name(on_trino: Shop) -> None:
    refused = on_trino.run(config={"vars": {"most": 0}})
    assert not refused.success and "test not_too_much failed" in said(refused)
    assert not on_trino.catalog.table_exists(("shop", "orders"))
    assert not on_trino.catalog.table_exists(("shop", "daily"))
    assert on_trino.run().success
    snapshots = {name: on_trino.catalog.load_table(("shop", name)).metadata.current_snapshot_id
                 for name in ("orders", "daily", "totals", "growing")}  # fmt: skip
    refused = on_trino.run(config={"vars": {"most": 0, "factor": 7}})
    assert not refused.success
    for name, snapshot in snapshots.items():
        assert on_trino.catalog.load_table(("shop", name)).metadata.current_snapshot_id == snapshot
    assert [row["amount"] for row in on_trino.rows("orders")] == [10, 20, 30, 40, 50, 60]
    assert on_trino.clones() == []
    # The increment that was withheld is not added by the next run, either.
    assert on_trino.run(config={"vars": {"factor": 3}}).success
    assert {row["factor"] for row in on_trino.rows("totals") if row["id"] > 3} == {3}


def test_one_model_reads_what_is_published(on_trino: Shop) -> None:
    assert on_trino.run().success
    (on_trino.product / "models" / "orders.sql").write_text(ORDERS.replace("c.id,", "c.id + 100 as id,"))
    outcome = on_trino.run("daily")
    assert outcome.success, said(outcome)
    # The view between them is no table: it is made again, to read what is published.
    assert set(metadata(outcome)) == {"daily"}
    assert on_trino.rows("daily") == [{"n": 4, "amount": 180}]


def test_an_error_names_the_model_and_what_trino_says(on_trino: Shop) -> None:
    (on_trino.product / "models" / "daily.sql").write_text("select nonsense from {{ ref('orders') }}\n")
    outcome = on_trino.run()
    assert not outcome.success
    assert "- daily: dbt: error: Trino: COLUMN_NOT_FOUND: " in said(outcome)
    assert "'nonsense' cannot be resolved" in said(outcome)
    assert on_trino.catalog.table_exists(("shop", "orders"))


def test_a_view_can_be_published_as_a_table(on_trino: Shop) -> None:
    (on_trino.product / "models" / "recent.sql").write_text(
        "{{ config(materialized='view', meta={'floe': {'publish': true}}) }}\n"
        "select * from {{ ref('orders') }} where id > {{ var('above', 2) }}\n"
    )
    assert on_trino.run().success
    assert [row["id"] for row in on_trino.rows("recent")] == [3, 4, 5, 6]
    outcome = on_trino.run(config={"vars": {"above": 4}})
    assert outcome.success, said(outcome)
    assert [row["id"] for row in on_trino.rows("recent")] == [5, 6]
    assert on_trino.rows("daily") == [{"n": 2, "amount": 110}]


def test_a_table_without_rows_takes_the_place_of_one_with_rows(on_trino: Shop) -> None:
    model = on_trino.product / "models" / "daily.sql"
    assert on_trino.run().success
    model.write_text("select cast(1 as bigint) as n, cast(1 as bigint) as amount where 1 = 0\n")
    outcome = on_trino.run()
    assert outcome.success, said(outcome)
    assert on_trino.rows("daily") == []


@pytest.mark.core
def test_from_duckdb_to_trino_and_back(on_trino: Shop, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.yaml"
    on_both = yaml.safe_load(manifest.read_text())
    on_duckdb = {**on_both, "plugins": {**on_both["plugins"], "compute": {"type": "duckdb"}}}
    for number, (document, engine) in enumerate(
        [(on_duckdb, "duckdb"), (on_both, "trino"), (on_duckdb, "duckdb")]
    ):
        manifest.write_text(yaml.safe_dump(document, sort_keys=False))
        outcome = on_trino.run(config={"vars": {"factor": number + 1, "after": 6 - 2 * number}})
        assert outcome.success, f"{engine}: {said(outcome)}"
        assert [row["amount"] for row in on_trino.rows("orders")] == [
            n * 10 * (number + 1) for n in range(1, 7)
        ]
        assert len(on_trino.rows("growing")) == number + 1
    table = on_trino.catalog.load_table(("shop", "totals"))
    assert len(table.metadata.snapshots) == 3
    assert {row["id"]: row["factor"] for row in on_trino.rows("totals")} == {
        1: 1,
        2: 1,
        3: 3,
        4: 3,
        5: 3,
        6: 3,
    }


def test_without_trino_the_run_says_where_it_looked(on_trino: Shop, tmp_path: Path) -> None:
    manifest = yaml.safe_load((tmp_path / "manifest.yaml").read_text())
    manifest["plugins"]["compute"]["config"]["port"] = 1
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    outcome = on_trino.run()
    assert not outcome.success
    assert "Trino at http://127.0.0.1:1 does not answer" in said(outcome)
    assert "plugins.compute.config.host and port" in said(outcome)


def test_a_snapshot_keeps_what_was_there_before(on_trino: Shop) -> None:
    (on_trino.product / "snapshots").mkdir()
    (on_trino.product / "snapshots" / "amounts.yml").write_text(
        "snapshots:\n"
        "  - name: amounts\n"
        "    relation: ref('orders')\n"
        "    config: {unique_key: id, strategy: check, check_cols: [amount]}\n"
    )
    first = on_trino.run()
    assert first.success, said(first)
    second = on_trino.run(config={"vars": {"factor": 2}})
    assert second.success, said(second)
    rows = on_trino.rows("amounts")
    assert len(rows) == 12 and metadata(second)["amounts"]["dagster/row_count"] == 12
    assert sorted(row["amount"] for row in rows if row["dbt_valid_to"] is None) == [20, 40, 60, 80, 100, 120]
    assert sorted(row["amount"] for row in rows if row["dbt_valid_to"]) == [10, 20, 30, 40, 50, 60]
    # Nothing changes, and nothing is added.
    third = on_trino.run("amounts")
    assert third.success, said(third)
    assert on_trino.rows("amounts") == rows and on_trino.clones() == []
