"""Compilation as Dagster assets, with a real instance and its state storage."""

from __future__ import annotations

import os
import time
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
    versions = {name: (e.tags or {})["dagster/data_version"] for name, e in events.items()}
    assert versions["compiled_artifacts"] == versions["dbt_manifest"] == digest
    assert len(set(versions.values())) == 3
    assert "| GENERATE |" in events["compiled_artifacts"].metadata["stages"].value
    assert {e.check_name for e in outcome.get_asset_check_evaluations()} == set(POLICIES)
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


@pytest.mark.slow
def test_the_metadata_says_what_changed_and_only_what_changed_has_a_new_version(
    shop: Path, instance: dg.DagsterInstance
) -> None:
    spec = shop / "floe.yaml"

    def versions_and_changes() -> tuple[dict[str, str], str]:
        events = compile_in_dagster(shop, instance).asset_materializations_for_node("shop_compile_step")
        by_name = {e.asset_key.path[-1]: e for e in events}
        tags = {name: (e.tags or {})["dagster/data_version"] for name, e in by_name.items()}
        return tags, str(by_name["compiled_artifacts"].metadata["changes"].value)

    before, first = versions_and_changes()
    assert first == "first state"
    spec.write_text(spec.read_text().replace("version: 1.0.0", "version: 1.1.0"))
    after, changes = versions_and_changes()
    assert "| consumers | product.version | 1.0.0 | 1.1.0 |" in changes
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"compiled_artifacts", "dbt_manifest"}
    assert "plugins.compute" not in changes
    with (shop.parent / "manifest.yaml").open("a") as file:
        file.write("plugins: {compute: {type: duckdb, config: {path: other.duckdb}}}\n")
    _, changes = versions_and_changes()
    assert "What the change of engine means" in changes
    assert "- **models** daily, orders: are built in FLOE_HOME/duckdb/other.duckdb" in changes


@pytest.mark.parametrize(
    ("repository", "start"),
    [
        ("https://github.com/acme/data.git", "https://github.com/acme/data/blob/HEAD/lake/"),
        ("https://token@gitlab.acme.io/data", "https://gitlab.acme.io/data/-/blob/HEAD/lake/"),
        ("git@github.com:acme/data.git", None),
    ],
)
def test_findings_link_to_their_line_in_the_repository(
    shop: Path, instance: dg.DagsterInstance, repository: str, start: str | None
) -> None:
    # The project is a folder of the repository.
    root = shop.parent
    project = root / "lake"
    project.mkdir()
    for entry in [shop, root / "manifest.yaml"]:
        entry.rename(project / entry.name)
    (root / ".git").mkdir()
    (project / "pyproject.toml").touch()
    moved = project / shop.name
    spec = moved / "floe.yaml"
    spec.write_text(spec.read_text() + f"repository: {repository}\n")
    manifest = project / "manifest.yaml"
    manifest.write_text(
        manifest.read_text() + "governance: {policy_enforcement_level: warn, naming: {pattern: medallion}}\n"
    )
    outcome = compile_in_dagster(moved, instance)
    naming = next(e for e in outcome.get_asset_check_evaluations() if e.check_name == "naming")
    findings = str(naming.metadata["findings"].value)
    link = f"[shop/models/daily.sql:1]({start}shop/models/daily.sql#L1)"
    assert (link in findings) == (start is not None) and "shop/models/daily.sql:1" in findings
    assert "token" not in findings

    spec_of = load_product_definitions(moved).resolve_asset_graph().get(dg.AssetKey(["shop", "daily"]))
    references = spec_of.metadata["dagster/code_references"].code_references
    urls = [each.url for each in references if isinstance(each, dg.UrlCodeReference)]
    assert bool(urls) == (start is not None) and all(url.startswith(str(start)) for url in urls)


def test_old_versions_of_the_state_are_removed(shop: Path, instance: dg.DagsterInstance) -> None:
    storage = instance.defs_state_storage
    assert storage is not None
    blob = shop.parent / "old"
    blob.write_bytes(b"old")
    for number in range(15):
        storage.upload_state_from_path(state_key("shop"), version=f"old{number:02d}", path=blob)
    folder = next(Path(instance.root_directory).rglob("old00")).parent
    a_week_ago = time.time() - 7 * 86_400
    for number in range(15):
        os.utime(folder / f"old{number:02d}", (a_week_ago + number, a_week_ago + number))
    assert compile_in_dagster(shop, instance).success
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("old"))
    assert names == [f"old{number:02d}" for number in range(6, 15)]
    assert len(list(folder.iterdir())) == 10
