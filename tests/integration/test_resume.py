"""Retries and re-executions: nothing that stands published is built again."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.definitions.recorded_attempts import CARRIED_OVER
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from tests.jobs import execute_job, reconstructable_shop_job

pytestmark = pytest.mark.slow

SCHEMA = """\
models:
  - name: orders
    columns: [{name: id, data_tests: [unique]}]
  - name: other
    columns: [{name: seven, data_tests: [not_null]}]
"""


@pytest.fixture
def job(shop: Path, home: FloeHome) -> Any:
    (shop / "models" / "schema.yml").write_text(SCHEMA)
    (shop / "models" / "other.sql").write_text("select 7 as seven\n")
    (shop / "models" / "history.sql").write_text(
        "{{ config(materialized='incremental') }}\nselect 1 as day\n"
    )
    result = compile_product(shop, home=home)
    assert result.bundle is not None, result.findings
    definitions = build_product_definitions(result.bundle, product_dir=shop, home=home)
    return definitions.resolve_job_def("shop_run")


def snapshots(home: FloeHome, table: str) -> int:
    return len(open_catalog(None, None, home=home).load_table(f"shop.{table}").metadata.snapshots)


def materialized(outcome: Any) -> set[str]:
    return {e.asset_key.path[-1] for e in outcome.asset_materializations_for_node("shop_dbt")}


def block(home: FloeHome, table: str) -> Path:
    """Put a file where the table's folder has to be: the disk refuses this one table."""
    place = home.warehouse_dir / "shop" / table
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("in the way")
    return place


def test_a_retry_after_an_infrastructure_failure_publishes_only_what_is_missing(
    job: Any, home: FloeHome, instance: dg.DagsterInstance
) -> None:
    place = block(home, "other")

    def clear() -> None:
        # The first attempt has failed as soon as its neighbours' tables are there and 5 seconds pass.
        # A run that fails before that must not keep the test waiting for ever.
        deadline = time.monotonic() + 120
        while not (home.warehouse_dir / "shop" / "history").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2)
        place.unlink()

    thread = threading.Thread(target=clear, daemon=True)
    thread.start()
    outcome = job.execute_in_process(instance=instance, raise_on_error=False)
    thread.join(150)
    assert outcome.success
    assert any(event.is_step_up_for_retry for event in outcome.all_events)
    assert materialized(outcome) == {"orders", "daily", "history", "other"}
    assert {name: snapshots(home, name) for name in ("orders", "daily", "history", "other")} == {
        "orders": 1,
        "daily": 1,
        "history": 1,
        "other": 1,
    }


def test_a_run_resumed_from_failure_leaves_published_models_alone(
    job: Any,
    shop: Path,
    home: FloeHome,
    instance: dg.DagsterInstance,
) -> None:
    place = block(home, "other")
    resumable = reconstructable_shop_job(shop, home)
    config = {"execution": {"config": {"in_process": {}}}}
    with execute_job(resumable, instance=instance, run_config=config) as first:
        assert not first.success
        assert materialized(first) == {"orders", "daily", "history"}
    place.unlink()
    options = dg.ReexecutionOptions.from_failure(first.run_id, instance)
    resumed = execute_job(resumable, instance=instance, run_config=config, reexecution_options=options)
    assert resumed.success
    assert materialized(resumed) == {"other"}
    checks = {e.check_name: e for e in resumed.get_asset_check_evaluations()}
    assert checks["unique_orders_id"].passed
    assert CARRIED_OVER in checks["unique_orders_id"].metadata
    assert CARRIED_OVER not in checks["not_null_other_seven"].metadata
    assert snapshots(home, "history") == 1


def test_a_failed_test_is_not_retried(shop: Path, home: FloeHome, instance: dg.DagsterInstance) -> None:
    (shop / "models" / "schema.yml").write_text(
        "models:\n  - name: orders\n    columns: [{name: status, data_tests: [{accepted_values: {values: [x]}}]}]\n"
    )
    result = compile_product(shop, home=home)
    assert result.bundle is not None
    definitions = build_product_definitions(result.bundle, product_dir=shop, home=home)
    outcome = definitions.resolve_job_def("shop_run").execute_in_process(
        instance=instance, raise_on_error=False
    )
    assert not outcome.success
    assert not any(event.is_step_up_for_retry for event in outcome.all_events)


def test_an_increment_that_was_never_published_is_not_added_twice(
    job: Any, home: FloeHome, instance: dg.DagsterInstance
) -> None:
    assert job.execute_in_process(instance=instance).success
    warehouse = home.warehouse_dir / "shop" / "history"
    shutil.move(warehouse / "data", warehouse / "kept")
    (warehouse / "data").write_text("in the way")
    key = [dg.AssetKey(["shop", "history"])]
    assert not job.execute_in_process(instance=instance, raise_on_error=False, asset_selection=key).success
    (warehouse / "data").unlink()
    shutil.move(warehouse / "kept", warehouse / "data")
    assert job.execute_in_process(instance=instance, asset_selection=key).success
    table = open_catalog(None, None, home=home).load_table("shop.history")
    assert table.scan().to_arrow().num_rows == 2
