"""The project as `dg` sees it, from its root, and runs that the command line starts without a code server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster
import pytest
from dagster._core.instance.ref import InstanceRef

from floe_dagster.definitions.state import state_key
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from tests.locations import DEFINITIONS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "dagster").mkdir()
    return {
        **os.environ,
        "FLOE_HOME": str(tmp_path / "home"),
        "DAGSTER_HOME": str(tmp_path / "dagster"),
        "VIRTUAL_ENV": sys.prefix,
    }


def dg(environment: dict[str, str], *arguments: str) -> str:
    return command(ROOT, environment, "dg", *arguments)


def command(folder: Path, environment: dict[str, str], name: str, *arguments: str) -> str:
    line = [str(Path(sys.executable).with_name(name)), *arguments]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_definitions_load(environment: dict[str, str]) -> None:
    assert "All definitions loaded successfully" in dg(environment, "check", "defs")


def test_definitions_of_all_products_are_listed(environment: dict[str, str]) -> None:
    listed: dict[str, Any] = json.loads(dg(environment, "list", "defs", "--json"))
    keys = {asset["asset_key"] for asset in listed["assets"]}
    products = ("customer_360", "iot_telemetry", "financial_risk")
    assert {f"{product}/compiled_artifacts" for product in products} <= keys
    assert {f"{product}_sources" for product in products} <= {s["name"] for s in listed["sensors"]}


def test_the_component_is_listed(environment: dict[str, str]) -> None:
    listed = json.loads(dg(environment, "list", "components", "--json"))
    assert "floe_dagster.components.FloeProduct" in {entry["key"] for entry in listed["items"]}


def test_the_command_line_compiles_and_runs_a_product_from_its_stored_state(
    environment: dict[str, str], shop: Path, home: FloeHome
) -> None:
    """Each process of these runs reconstructs the definitions; none was told which state to take."""
    (shop / "definitions.py").write_text(DEFINITIONS)
    command(
        shop.parent,
        environment,
        "dagster",
        "job",
        "execute",
        "-f",
        "shop/definitions.py",
        "-j",
        "shop_compile",
    )
    assert not (shop / "target").exists(), "a state in the folder would be found without the storage"
    command(shop.parent, environment, "dg", "launch", "-m", "shop.definitions", "--job", "shop_run")
    named = ("-f", "shop/definitions.py", "-a", "defs")
    command(shop.parent, environment, "dagster", "asset", "materialize", *named, "--select", "shop/orders")
    catalog = open_catalog(None, None, home=home)
    assert {name: len(catalog.load_table(f"shop.{name}").snapshots()) for name in ("orders", "daily")} == {
        "orders": 2,
        "daily": 1,
    }
    with dagster.DagsterInstance.from_ref(InstanceRef.from_dir(environment["DAGSTER_HOME"])) as instance:
        newest = instance.get_runs(limit=1)[0]
        plan = instance.get_execution_plan_snapshot(str(newest.execution_plan_snapshot_id))
        assert plan.repository_load_data is not None and plan.repository_load_data.defs_state_info is not None
        storage = instance.defs_state_storage
        assert storage is not None
        pinned = plan.repository_load_data.defs_state_info.get_version(state_key("shop"))
        assert pinned == storage.get_latest_version(state_key("shop")) is not None
