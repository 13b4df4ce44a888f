"""What an operator runs when a catalog was lost, or when a product is no more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from floe_dagster.definitions.state import state_key
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from tests.conftest import ROOT

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def home(tmp_path: Path) -> FloeHome:
    return FloeHome(tmp_path / "home")


@pytest.fixture
def run(home: FloeHome) -> Run:
    """Runs one of the scripts on the embedded catalog, as the toolbox would: from its standard input."""

    def start(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        with (ROOT / "deploy" / "production" / script).open() as source:
            return subprocess.run(
                [sys.executable, "-", *arguments],
                stdin=source,
                env={
                    "PATH": os.environ["PATH"],
                    "FLOE_HOME": str(home.path),
                    "FLOE_MANIFEST": str(ROOT / "manifests" / "local.yaml"),
                },
                capture_output=True,
                text=True,
                cwd=home.path.parent,
            )

    return start


def catalog(home: FloeHome) -> Catalog:
    return open_catalog(None, None, home=home)


def write(home: FloeHome, table: str, *batches: list[int], product: str = "shop") -> str:
    """Make a table with a snapshot for each batch; returns where its metadata stands."""
    opened = catalog(home)
    opened.create_namespace_if_not_exists("shop")
    schema = pa.schema([("id", pa.int64())])
    made = opened.create_table(("shop", table), schema=schema, properties={"floe.product": product})
    for batch in batches:
        made.append(pa.table({"id": batch}, schema=schema))
    return made.metadata_location


def lose_catalog(home: FloeHome) -> None:
    for file in home.path.glob("catalog.db*"):
        file.unlink()


def ids(home: FloeHome, table: str) -> list[int]:
    found: list[int] = catalog(home).load_table(("shop", table)).scan().to_arrow()["id"].to_pylist()
    return sorted(found)


def test_a_lost_catalog_gets_its_tables_back_with_their_history(home: FloeHome, run: Run) -> None:
    last = write(home, "orders", [1, 2], [3])
    write(home, "empty")
    before = [s.snapshot_id for s in catalog(home).load_table("shop.orders").metadata.snapshots]
    lose_catalog(home)

    looked = run("register_tables.py", "--dry-run")
    assert looked.returncode == 0, looked.stderr
    assert "would register shop.orders" in looked.stdout and last in looked.stdout
    assert not catalog(home).namespace_exists("shop")

    done = run("register_tables.py")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["registered", "shop.empty"],
        ["registered", "shop.orders"],
    ]
    table = catalog(home).load_table("shop.orders")
    assert [s.snapshot_id for s in table.metadata.snapshots] == before and ids(home, "orders") == [1, 2, 3]
    # It can be written again.
    table.append(pa.table({"id": pa.array([4], pa.int64())}))
    assert ids(home, "orders") == [1, 2, 3, 4]
    again = run("register_tables.py")
    assert [line.split()[0] for line in again.stdout.splitlines()] == ["there", "there"]
    assert ids(home, "orders") == [1, 2, 3, 4]


def test_a_table_that_was_made_again_is_not_taken_for_its_predecessor(home: FloeHome, run: Run) -> None:
    write(home, "orders", [1], [2], [3])
    catalog(home).drop_table(("shop", "orders"))
    write(home, "orders", [9])
    lose_catalog(home)
    # What a copy of a bucket does to the times of its files.
    for file in home.warehouse_dir.rglob("*.metadata.json"):
        number = int(file.name.split("-")[0])
        os.utime(file, (1_000_000 + number, 1_000_000 + number))
    assert run("register_tables.py", "shop").returncode == 0
    assert ids(home, "orders") == [9]


def test_a_metadata_file_that_cannot_be_read_is_told_and_left_out(home: FloeHome, run: Run) -> None:
    last = write(home, "orders", [1])
    write(home, "broken")
    metadata = Path(last.removeprefix("file://"))
    metadata.with_name("00009-0a0a0a0a-0000-0000-0000-000000000000.metadata.json").write_text("{")
    for file in (home.warehouse_dir / "shop" / "broken").rglob("*.metadata.json"):
        file.write_text(json.dumps({"format-version": 2}))
    lose_catalog(home)
    done = run("register_tables.py")
    assert done.returncode == 1
    assert "00009-" in done.stderr and "shop.broken has no metadata file" in done.stderr
    assert "Traceback" not in done.stderr
    assert ids(home, "orders") == [1]


def test_a_namespace_that_was_not_asked_for_stays_lost(home: FloeHome, run: Run) -> None:
    write(home, "orders", [1])
    lose_catalog(home)
    assert run("register_tables.py", "other").stdout == ""
    assert not catalog(home).namespace_exists("shop")


def test_a_product_s_tables_are_listed_before_they_are_dropped(home: FloeHome, run: Run) -> None:
    write(home, "orders", [1, 2], [3])
    looked = run("drop_tables.py", "shop")
    assert looked.returncode == 0 and "shop.orders: 3 rows" in looked.stdout, looked.stderr
    assert ids(home, "orders") == [1, 2, 3]

    done = run("drop_tables.py", "--yes", "shop")
    assert done.returncode == 0, done.stderr
    assert "dropped shop.orders" in done.stdout and "dropped the namespace shop" in done.stdout
    assert not catalog(home).namespace_exists("shop")
    assert [path for path in home.warehouse_dir.rglob("*") if path.is_file()] == []
    assert run("drop_tables.py", "--yes", "shop").stdout == "shop has no tables\n"


def test_another_product_s_table_stays(home: FloeHome, run: Run) -> None:
    write(home, "orders", [1])
    write(home, "foreign", [2], product="billing")
    done = run("drop_tables.py", "--yes", "shop")
    assert done.returncode == 1 and "shop.foreign belongs to billing" in done.stderr
    assert ids(home, "foreign") == [2] and not catalog(home).table_exists("shop.orders")


INSTANCE = """\
run_launcher:
  module: dagster_k8s
  class: K8sRunLauncher
  config:
    service_account_name: none
    instance_config_map: none
    dagster_home: /opt/dagster
    job_image: none
defs_state_storage:
  module: dagster._core.storage.defs_state.blob_storage_state_storage
  class: UPathDefsStateStorage
  config: {base_path: "file://%s"}
"""
"""As in the cluster, with a launcher that cannot be made here: there is no account of a pod."""


def test_a_product_s_states_are_forgotten_and_no_other_s(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(INSTANCE % (tmp_path / "states"))
    (tmp_path / "bundle").write_bytes(b"a state")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        storage = instance.defs_state_storage
        assert storage is not None
        for product in ("orders_daily", "billing"):
            for version in ("one", "two"):
                storage.upload_state_from_path(state_key(product), version, tmp_path / "bundle")

    def forget() -> str:
        command = [sys.executable, str(ROOT / "deploy" / "production" / "forget_state.py"), "orders-daily"]
        environment = {"PATH": os.environ["PATH"], "DAGSTER_HOME": str(tmp_path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "forgot FloeProduct[orders_daily]: 2 states" in forget()
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        storage = instance.defs_state_storage
        assert storage is not None
        assert storage.get_latest_version(state_key("orders_daily")) is None
        assert storage.get_latest_version(state_key("billing")) == "two"
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["FloeProduct__billing__"]
    assert ": 0 states" in forget()


@pytest.mark.parametrize("script", ["register_tables.py", "drop_tables.py"])
def test_without_a_manifest_the_scripts_say_what_is_missing(script: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "production" / script), "shop"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        cwd=shutil.copytree(ROOT / "manifests", tmp_path / "elsewhere"),
    )
    assert done.returncode == 2 and "FLOE_MANIFEST" in done.stderr
