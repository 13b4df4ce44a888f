"""Compilation as Dagster assets, with a real instance and its state storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from floe_dagster import load_product_definitions
from floe_dagster.definitions.state import state_key
from floe_dagster.policies import POLICIES

COMPILE = {"platform_manifest", "resolved_governance", "compiled_artifacts", "dbt_manifest"}


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    folder = tmp_path / "dagster"
    folder.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    monkeypatch.setenv("FLOE_HOME", str(tmp_path / "home"))
    with dg.DagsterInstance.get() as made:
        yield made


def compile_in_dagster(shop: Path, instance: dg.DagsterInstance) -> Any:
    job = load_product_definitions(shop).resolve_job_def("shop_compile")
    return job.execute_in_process(instance=instance, raise_on_error=False)


def asset_names(definitions: dg.Definitions) -> set[str]:
    keys = definitions.get_repository_def().asset_graph.get_all_asset_keys()
    assert all(key.path[0] == "shop" for key in keys)
    return {key.path[-1] for key in keys}


def test_without_state_a_location_loads_says_what_to_do_and_compiles_by_itself(
    shop: Path, instance: dg.DagsterInstance
) -> None:
    definitions = load_product_definitions(shop)
    assert asset_names(definitions) == COMPILE
    spec = definitions.resolve_asset_graph().get(dg.AssetKey(["shop", "dbt_manifest"]))
    assert "no compiled state yet" in (spec.description or "")
    sensor = definitions.get_repository_def().get_sensor_def("shop_sources")
    with dg.build_sensor_context(instance=instance) as context:
        tick = sensor.evaluate_tick(context)
    assert tick.run_requests and len(tick.run_requests) == 1


def test_a_compile_stores_the_state_that_the_location_then_serves(
    shop: Path, instance: dg.DagsterInstance
) -> None:
    outcome = compile_in_dagster(shop, instance)
    assert outcome.success
    events = {e.asset_key.path[-1]: e for e in outcome.asset_materializations_for_node("shop_compile_step")}
    assert set(events) == COMPILE
    digest = events["compiled_artifacts"].metadata["digest"].value
    storage = instance.defs_state_storage
    assert storage is not None
    assert f"sha256:{storage.get_latest_version(state_key('shop'))}" == digest
    assert {e.tags["dagster/data_version"] for e in events.values() if e.tags} == {digest}
    assert "| GENERATE |" in events["compiled_artifacts"].metadata["stages"].value
    assert {e.check_name for e in outcome.get_asset_check_evaluations()} == {p.name for p in POLICIES}
    assert all(e.passed for e in outcome.get_asset_check_evaluations())

    definitions = load_product_definitions(shop)
    assert asset_names(definitions) == COMPILE | {"orders", "daily"}
    sensor = definitions.get_repository_def().get_sensor_def("shop_sources")
    with dg.build_sensor_context(instance=instance) as context:
        assert not sensor.evaluate_tick(context).run_requests


def test_a_refused_edit_blocks_and_the_last_good_state_stays(
    shop: Path, instance: dg.DagsterInstance
) -> None:
    assert compile_in_dagster(shop, instance).success
    storage = instance.defs_state_storage
    assert storage is not None
    good = storage.get_latest_version(state_key("shop"))
    manifest = shop.parent / "manifest.yaml"
    manifest.write_text(
        manifest.read_text()
        + "governance: {policy_enforcement_level: strict, naming: {pattern: medallion}}\n"
    )
    outcome = compile_in_dagster(shop, instance)
    assert not outcome.success
    naming = next(e for e in outcome.get_asset_check_evaluations() if e.check_name == "naming")
    assert not naming.passed and naming.severity == dg.AssetCheckSeverity.ERROR and naming.blocking
    failure = next(e for e in outcome.all_events if e.is_step_failure)
    assert "shop/models/daily.sql:1" in str(failure.step_failure_data.user_failure_data.description)
    assert storage.get_latest_version(state_key("shop")) == good
    assert asset_names(load_product_definitions(shop)) == COMPILE | {"orders", "daily"}


def test_there_and_back_again_compiles_twice(shop: Path, instance: dg.DagsterInstance) -> None:
    assert compile_in_dagster(shop, instance).success
    definitions = load_product_definitions(shop)
    sensor = definitions.get_repository_def().get_sensor_def("shop_sources")
    spec, cursor, keys = shop / "floe.yaml", None, []
    text = spec.read_text()
    for content in (text, text + "# one\n", text + "# two\n", text + "# one\n"):
        spec.write_text(content)
        with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
            tick = sensor.evaluate_tick(context)
        cursor = tick.cursor
        keys += [request.run_key for request in tick.run_requests or ()]
    assert len(set(keys)) == 3


def test_a_damaged_state_does_not_take_the_location_down(
    shop: Path, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"no archive")
    storage = instance.defs_state_storage
    assert storage is not None
    storage.upload_state_from_path(state_key("shop"), version="bad", path=bad)
    assert asset_names(load_product_definitions(shop)) == COMPILE
