"""Compiled state in a real object store, with the keys and the storage that the chart's dagster.yaml names."""

from __future__ import annotations

import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType

from deploy.services import control
from floe_dagster import load_product_definitions
from floe_dagster.compilation.bundle import Bundle
from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.state import KEPT_VERSIONS, state_key, store_bundle
from floe_dagster.home import FloeHome
from tests.conftest import ROOT
from tests.services.conftest import Services

KEY = state_key("shop")


@pytest.fixture
def instance(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An instance whose state lies where the chart's demo has it, in this store."""
    values = yaml.safe_load((ROOT / "deploy" / "floe-platform" / "values.yaml").read_text())
    storage = values["dagster"]["additionalInstanceConfig"]["defs_state_storage"]
    storage["config"]["storage_options"] = {
        "endpoint_url": services.state["minio"],
        "skip_instance_cache": True,
    }
    storage["config"]["base_path"] += f"/{tmp_path.name}"
    assert storage["config"]["base_path"].startswith(f"s3://{control.BUCKET}/")
    for name, value in services.dagster_keys().items():
        monkeypatch.setenv(name, value)
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump({"defs_state_storage": storage}))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("FLOE_HOME", str(tmp_path / "home"))
    with dg.DagsterInstance.get() as made:
        yield made


def loaded(shop: Path) -> tuple[set[str], str | None]:
    context = DefinitionsLoadContext(DefinitionsLoadType.INITIALIZATION)
    with DefinitionsLoadContext.scoped(context):
        definitions = load_product_definitions(shop)
        info = context.accessed_defs_state_info
    keys = definitions.get_repository_def().asset_graph.get_all_asset_keys()
    return {key.path[-1] for key in keys}, info.get_version(KEY) if info else None


def test_a_pod_with_an_empty_volume_serves_what_another_stored_and_goes_back(
    shop: Path, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    versions = []
    for extra in ("", "-- a newer image\n"):
        (shop / "models" / "orders.sql").write_text(f"select 1 as id, 'paid' as status\n{extra}")
        job = load_product_definitions(shop).resolve_job_def("shop_compile")
        assert job.execute_in_process(instance=instance).success
        storage: Any = instance.defs_state_storage
        versions.append(storage.get_latest_version(KEY))
        shutil.rmtree(tmp_path / "home")
    names, pinned = loaded(shop)
    assert {"orders", "daily"} <= names and pinned == versions[1]
    # The older image: its sources, nobody's volume.
    shutil.rmtree(tmp_path / "home")
    (shop / "models" / "orders.sql").write_text("select 1 as id, 'paid' as status\n")
    names, pinned = loaded(shop)
    assert {"orders", "daily"} <= names and pinned == versions[0]


def test_a_store_that_is_away_leaves_the_location_with_the_baked_state(
    shop: Path, instance: dg.DagsterInstance, services: Services
) -> None:
    baked = compile_product(shop)
    assert baked.bundle_path is not None
    (shop / "target").mkdir(exist_ok=True)
    shutil.copyfile(baked.bundle_path, shop / "target" / "floe_state.zip")
    services.kill("minio")
    begun = time.monotonic()
    names, pinned = loaded(shop)
    assert {"orders", "daily"} <= names and pinned is None
    assert time.monotonic() - begun < 60


def renamed(bundle: Path, folder: Path, number: int) -> Bundle:
    """Return the bundle under another digest."""
    path = folder / f"{number}.zip"
    with zipfile.ZipFile(bundle) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "bundle.json":
                digest = Bundle.open(bundle).digest.encode()
                data = data.replace(digest, f"sha256:{number:064x}".encode())
            target.writestr(name, data)
    return Bundle.open(path)


def test_old_versions_are_removed_from_the_store(
    shop: Path, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from floe_dagster.definitions import state

    monkeypatch.setattr(state, "KEPT_SECONDS", -60)
    compiled = compile_product(shop)
    assert compiled.bundle_path is not None
    count = KEPT_VERSIONS + 3
    for number in range(count):
        made = renamed(compiled.bundle_path, tmp_path, number)
        assert store_bundle(instance, "shop", made, FloeHome(tmp_path / "home"))
    storage: Any = instance.defs_state_storage
    storage.base_path.fs.invalidate_cache()
    kept = {entry.name for entry in (storage.base_path / storage._sanitize_key(KEY)).iterdir()}
    assert f"{count - 1:064x}" in kept
    assert len(kept) == KEPT_VERSIONS
