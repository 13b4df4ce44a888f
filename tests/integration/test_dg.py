"""The project as `dg` sees it, from its root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
    command = [str(Path(sys.executable).with_name("dg")), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
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
