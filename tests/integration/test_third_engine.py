"""Another engine is one more module and its line in the registry: a product is compiled, built and published on one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from tests import packages
from tests.conftest import MANIFEST
from tests.packages import with_kind

pytestmark = pytest.mark.slow

ENGINE = '''\
"""An engine of its own, which computes with what is installed here: DuckDB, in another file."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from floe_dagster.schemas.base import Section
from floe_dagster.schemas.compute.engine import FLOE_HOME_REFERENCE, DataSource, Engine


class PondConfig(Section):
    depth: int = Field(description="Threads of dbt.")


class PondCompute(Section):
    type: Literal["pond"] = Field(description="Engine.")
    version: str | None = Field(None, description="Version the platform asks for; informative.")
    config: PondConfig = Field(description="Settings of the pond.")


def _dbt_output(slug: str, config: Mapping[str, Any]) -> dict[str, Any]:
    path = f"{FLOE_HOME_REFERENCE}/duckdb/pond_{slug}.duckdb"
    return {"type": "duckdb", "path": path, "schema": "main", "threads": config["depth"]}


POND = Engine(
    name="pond",
    title="Pond",
    plugin=PondCompute,
    dialect="duckdb",
    adapter="dbt-duckdb",
    writes_catalog=False,
    workspace="floe_dagster.execution.workspaces.duckdb.workspace:DuckDBWorkspace",
    dbt_output=_dbt_output,
    data_source=lambda output: DataSource("pond://deep"),
    place=lambda output: "the pond",
)
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with floe-dagster that has one module and one line more."""
    return with_kind(
        tmp_path / "package",
        "schemas/compute/pond.py",
        ENGINE,
        "schemas/compute/__init__.py",
        ("(DUCKDB, TRINO)", "(DUCKDB, TRINO, POND)"),
        (
            "from floe_dagster.schemas.compute.trino import",
            "from floe_dagster.schemas.compute.pond import POND\nfrom floe_dagster.schemas.compute.trino import",
        ),
    )


def floe(package: Path, product: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return packages.floe(package, product, *arguments, product)


def configure(shop: Path, **plugins: object) -> None:
    (shop.parent / "manifest.yaml").write_text(MANIFEST + yaml.safe_dump({"plugins": plugins}))


def test_a_product_is_built_and_published_on_it_with_one_model_on_another(package: Path, shop: Path) -> None:
    pond = {"type": "pond", "config": {"depth": 2}}
    configure(shop, compute=pond, additional_compute=[{"type": "duckdb"}])
    with (shop / "floe.yaml").open("a") as file:
        file.write("transforms:\n- {name: orders, compute: duckdb}\n- {name: daily}\n")
    done = floe(package, shop, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    home = FloeHome(shop.parent / "home")
    assert (home.duckdb_dir / "pond_shop.duckdb").exists()
    catalog = open_catalog(None, None, home=home)
    engines = {
        name: catalog.load_table(("shop", name)).current_snapshot().summary["floe.engine"]
        for name in ("orders", "daily")
    }
    assert engines == {"orders": "duckdb", "daily": "pond"}
    assert catalog.load_table(("shop", "daily")).scan().to_arrow().to_pylist() == [{"n": 1}]


def test_its_settings_and_a_change_to_it_are_told_like_those_of_others(package: Path, shop: Path) -> None:
    configure(shop, compute={"type": "pond", "config": {"depth": "deep"}})
    refused = floe(package, shop, "compile")
    assert refused.returncode == 2
    assert "plugins.compute.config.depth" in refused.stdout + refused.stderr
    configure(shop, compute={"type": "duckdb"})
    assert floe(package, shop, "compile").returncode == 0
    configure(shop, compute={"type": "pond", "config": {"depth": 1}})
    done = floe(package, shop, "diff", "--format", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = json.loads(done.stdout)
    said = {each["topic"]: each["text"] for each in report["engine"]}
    assert "computed by pond in the pond" in said["models"]
    assert "with the rows that Pond computes" in said["tables"]
