"""A run inside a container's limit of memory: DuckDB takes what is left, through the public door."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.memory import parse_bytes
from tests.conftest import MANIFEST
from tests.integration.kubernetes.control_group import limited

pytestmark = pytest.mark.slow

GIB = 1024**3


def limit_in_a_run(shop: Path, home: FloeHome, memory: int) -> int:
    """Run the shop within `memory` bytes and return DuckDB's limit there, which a model of it publishes."""
    (shop / "models" / "settings.sql").write_text("select current_setting('memory_limit') as memory_limit\n")
    with limited(memory) as within:
        done = subprocess.run(
            [*within, str(Path(sys.executable).with_name("floe-dagster")), "run", str(shop)],
            env={**os.environ, "FLOE_HOME": str(home.path)},
            cwd=shop.parent,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    [row] = open_catalog(None, None, home=home).load_table("shop.settings").scan().to_arrow().to_pylist()
    return parse_bytes(row["memory_limit"])


@pytest.mark.parametrize(
    ("configured", "expected"),
    # DuckDB tells what it sees with one decimal, rounded down.
    [(None, 0.9 * GIB), ("8GB", 0.9 * GIB), ("512MiB", 0.5 * GIB)],
)
def test_duckdb_takes_what_the_pod_has_beside_the_processes_of_the_run(
    shop: Path, home: FloeHome, configured: str | None, expected: float
) -> None:
    if configured:
        compute = f"plugins: {{compute: {{type: duckdb, config: {{memory_limit: {configured}}}}}}}\n"
        (shop.parent / "manifest.yaml").write_text(MANIFEST + compute)
    assert limit_in_a_run(shop, home, 2 * GIB) == pytest.approx(expected, rel=0.05)
