"""Running a product: real dbt, DuckDB and Iceberg."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog

TESTS = """\
models:
  - name: orders
    columns:
      - {name: id, data_tests: [unique]}
      - name: status
        data_tests:
          - not_null: {config: {severity: warn}}
"""


@pytest.fixture
def tested_shop(shop: Path) -> Path:
    (shop / "models" / "schema.yml").write_text(TESTS)
    (shop / "models" / "other.sql").write_text("select 7 as seven\n")
    return shop


def run(product: Path, home: FloeHome, **options: Any) -> Any:
    result = compile_product(product, home=home)
    assert result.bundle is not None, result.findings
    definitions = build_product_definitions(result.bundle, product_dir=product, home=home)
    assert isinstance(definitions.resources, dict) and "shop_dbt" in definitions.resources
    return definitions.resolve_job_def("shop_run").execute_in_process(raise_on_error=False, **options)


def rows(home: FloeHome, table: str) -> list[dict[str, Any]]:
    return open_catalog(None, None, home=home).load_table(f"shop.{table}").scan().to_arrow().to_pylist()


def materialized(outcome: Any) -> set[str]:
    return {e.asset_key.path[-1] for e in outcome.asset_materializations_for_node("shop_dbt")}


def test_a_clean_run_publishes_everything(tested_shop: Path, home: FloeHome) -> None:
    outcome = run(tested_shop, home)
    assert outcome.success and materialized(outcome) == {"orders", "daily", "other"}
    assert rows(home, "orders") == [{"id": 1, "status": "paid"}]
    metadata = {
        e.asset_key.path[-1]: e.metadata for e in outcome.asset_materializations_for_node("shop_dbt")
    }["orders"]
    assert metadata["dagster/row_count"].value == 1
    # Dagster takes the relation identifier for an older name of the same: one asset, one name.
    assert metadata["dagster/table_name"].value == "shop.orders"
    assert "dagster/relation_identifier" not in metadata
    lineage = {
        e.asset_key.path[-1]: e.metadata.get("dagster/column_lineage")
        for e in outcome.asset_materializations_for_node("shop_dbt")
    }
    assert lineage["daily"] is not None and lineage["orders"] is None
    assert lineage["daily"].value.deps_by_column == {"n": []}
    table = open_catalog(None, None, home=home).load_table("shop.orders")
    snapshot = table.current_snapshot()
    assert snapshot is not None and snapshot.summary is not None
    assert metadata["iceberg/snapshot_id"].value == str(snapshot.snapshot_id)
    assert snapshot.summary["floe.product"] == "shop"
    assert snapshot.summary["floe.dagster-run-id"] == outcome.run_id


def test_views_and_seeds_are_recorded_and_not_published(tested_shop: Path, home: FloeHome) -> None:
    (tested_shop / "seeds").mkdir()
    (tested_shop / "seeds" / "countries.csv").write_text("code,Größe\nde,83\nfr,68\n")
    (tested_shop / "models" / "big.sql").write_text(
        "{{ config(materialized='view') }}\nselect code, \"Größe\" as size from {{ ref('countries') }}\n"
    )
    outcome = run(tested_shop, home)
    found = {e.asset_key.path[-1]: e.metadata for e in outcome.asset_materializations_for_node("shop_dbt")}
    assert found["countries"]["dagster/row_count"].value == 2
    assert "dagster/row_count" not in found["big"]
    assert found["big"]["dagster/table_name"].value == "shop.main.big"
    assert [c.name for c in found["big"]["dagster/column_schema"].value.columns] == ["code", "size"]
    lineage = found["big"]["dagster/column_lineage"].value.deps_by_column
    assert {
        name: [(d.asset_key.path[-1], d.column_name) for d in deps] for name, deps in lineage.items()
    } == {
        "code": [("countries", "code")],
        "size": [("countries", "Größe")],
    }
    catalog = open_catalog(None, None, home=home)
    assert not catalog.table_exists("shop.big") and not catalog.table_exists("shop.countries")


def test_vars_of_one_run_reach_dbt(tested_shop: Path, home: FloeHome) -> None:
    (tested_shop / "models" / "other.sql").write_text("select {{ var('n', 7) }} as seven\n")
    run(tested_shop, home, run_config={"ops": {"shop_dbt": {"config": {"vars": {"n": 8}}}}})
    assert rows(home, "other") == [{"seven": 8}]


@pytest.mark.slow
def test_a_missing_incremental_ancestor_is_restored_and_not_extended(
    tested_shop: Path, home: FloeHome
) -> None:
    (tested_shop / "models" / "history.sql").write_text(
        "{{ config(materialized='incremental') }}\nselect 1 as day\n"
    )
    (tested_shop / "models" / "report.sql").write_text("select count(*) as days from {{ ref('history') }}\n")
    assert run(tested_shop, home).success
    for file in home.duckdb_dir.iterdir():
        file.unlink()
    outcome = run(tested_shop, home, asset_selection=[dg.AssetKey(["shop", "report"])])
    assert outcome.success and materialized(outcome) == {"report"}
    assert rows(home, "report") == [{"days": 1}]


def test_what_fails_its_test_is_withheld_with_all_that_reads_it(tested_shop: Path, home: FloeHome) -> None:
    run(tested_shop, home)
    (tested_shop / "models" / "orders.sql").write_text(
        "select 2 as id, 'x' as status union all select 2, null\n"
    )
    (tested_shop / "models" / "other.sql").write_text("select 8 as seven\n")
    outcome = run(tested_shop, home)
    assert not outcome.success and materialized(outcome) == {"other"}
    assert rows(home, "orders") == [{"id": 1, "status": "paid"}]
    assert rows(home, "other") == [{"seven": 8}]
    results = {e.check_name: (e.passed, e.severity.value) for e in outcome.get_asset_check_evaluations()}
    assert results == {"unique_orders_id": (False, "ERROR"), "not_null_orders_status": (False, "WARN")}


def test_a_singular_test_withholds_every_model_it_reads(tested_shop: Path, home: FloeHome) -> None:
    (tested_shop / "tests").mkdir()
    (tested_shop / "tests" / "never.sql").write_text(
        "select * from {{ ref('other') }} cross join {{ ref('daily') }}\n"
    )
    outcome = run(tested_shop, home)
    assert not outcome.success and materialized(outcome) == {"orders"}


def test_a_model_that_breaks_is_named_and_the_others_go_on(tested_shop: Path, home: FloeHome) -> None:
    (tested_shop / "models" / "orders.sql").write_text("select 1 / 'x' as id, nothing\n")
    outcome = run(tested_shop, home)
    assert materialized(outcome) == {"other"}
    failure = next(e for e in outcome.all_events if e.is_step_failure)
    assert "- orders: dbt: error" in str(failure.step_failure_data.user_failure_data.description)


@pytest.mark.slow
def test_an_empty_model_is_published_empty(tested_shop: Path, home: FloeHome) -> None:
    run(tested_shop, home)
    (tested_shop / "models" / "other.sql").write_text("select 7 as seven where false\n")
    assert run(tested_shop, home).success
    assert rows(home, "other") == []


def test_runs_execute_what_was_compiled_not_the_working_tree(tested_shop: Path, home: FloeHome) -> None:
    result = compile_product(tested_shop, home=home)
    assert result.bundle is not None
    definitions = build_product_definitions(result.bundle, product_dir=tested_shop, home=home)
    (tested_shop / "models" / "other.sql").write_text("select 9 as refused\n")
    assert definitions.resolve_job_def("shop_run").execute_in_process().success
    assert rows(home, "other") == [{"seven": 7}]


def test_a_subset_builds_what_it_misses_and_records_only_what_was_asked(
    tested_shop: Path, home: FloeHome
) -> None:
    outcome = run(tested_shop, home, asset_selection=[dg.AssetKey(["shop", "daily"])])
    assert outcome.success and materialized(outcome) == {"daily"}
    assert rows(home, "daily") == [{"n": 1}]


@pytest.mark.slow
def test_a_lost_duckdb_file_does_not_lose_an_incremental_models_history(
    tested_shop: Path, home: FloeHome
) -> None:
    model = tested_shop / "models" / "history.sql"
    sql = "{{ config(materialized='incremental') }}\nselect %d as day\n"
    model.write_text(sql % 1)
    assert run(tested_shop, home).success
    for file in home.duckdb_dir.iterdir():
        file.unlink()
    model.write_text(sql % 2)
    assert run(tested_shop, home).success
    assert sorted(row["day"] for row in rows(home, "history")) == [1, 2]


@pytest.mark.slow
def test_a_withheld_increment_is_not_kept(tested_shop: Path, home: FloeHome) -> None:
    model, schema = tested_shop / "models" / "history.sql", tested_shop / "models" / "schema.yml"
    schema.write_text(TESTS + "  - name: history\n    columns: [{name: day, data_tests: [not_null]}]\n")
    sql = "{{ config(materialized='incremental') }}\nselect %s as day\n"
    for value, good in (("1", True), ("cast(null as integer)", False), ("2", True)):
        model.write_text(sql % value)
        assert run(tested_shop, home).success is good
    assert sorted(row["day"] for row in rows(home, "history")) == [1, 2]


@pytest.mark.slow
def test_full_refresh_starts_over(tested_shop: Path, home: FloeHome) -> None:
    (tested_shop / "models" / "history.sql").write_text(
        "{{ config(materialized='incremental') }}\nselect 1 as day\n"
    )
    run(tested_shop, home)
    run(tested_shop, home)
    assert len(rows(home, "history")) == 2
    run(tested_shop, home, run_config={"ops": {"shop_dbt": {"config": {"full_refresh": True}}}})
    assert len(rows(home, "history")) == 1
