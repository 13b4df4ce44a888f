"""Clones of published tables: no run publishes or loses what it did not build."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.clones import make_clone
from floe_dagster.iceberg.errors import CatalogError
from floe_dagster.iceberg.leases import lease
from tests.processes import wait_for
from tests.services.conftest import Services
from tests.trino.shops import AUDIT, Shop, said


@pytest.mark.core
def test_trino_never_drops_what_another_run_writes(on_trino: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_trino.run().success
    # As if the other run, on another machine, had begun after this one took away what was left.
    monkeypatch.setattr("floe_dagster.execution.workspaces.trino.workspace.drop_clones", lambda *_: [])
    clone = make_clone(on_trino.catalog, on_trino.catalog.load_table(("shop", "orders")), (AUDIT, "orders"))
    outcome = on_trino.run()
    assert not outcome.success
    assert "floe_audit_shop.orders is written by another run of shop" in said(outcome)
    assert on_trino.catalog.load_table((AUDIT, "orders")).metadata.table_uuid == clone.metadata.table_uuid
    assert len(on_trino.rows("orders")) == 6


def test_runs_on_two_machines_wait_for_each_other(on_trino: Shop, tmp_path: Path) -> None:
    on_trino.catalog.create_namespace_if_not_exists(AUDIT)
    with lease(on_trino.catalog, AUDIT, holder="run x on laptop", place="elsewhere", say=print):
        output = tmp_path / "output.txt"
        with output.open("w") as written:
            command = [Path(sys.executable).with_name("floe-dagster"), "run", str(on_trino.product)]
            process = subprocess.Popen(
                command,
                env={**os.environ, "FLOE_HOME": str(on_trino.home.path)},
                stdout=written,
                stderr=written,
            )
        waits = f"waiting for run x on laptop, which writes {AUDIT}"
        wait_for("the run to wait", lambda: waits in output.read_text() or process.poll() is not None, 300)
        assert process.poll() is None, output.read_text()
        assert not on_trino.catalog.table_exists(("shop", "orders"))
    assert process.wait(300) == 0, output.read_text()
    assert len(on_trino.rows("orders")) == 6


def test_a_clone_that_cannot_be_taken_away_is_no_failure(
    on_trino: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise CatalogError("the catalog is away")

    assert on_trino.run().success
    monkeypatch.setattr("floe_dagster.execution.workspaces.trino.publishing.drop_clone", away)
    outcome = on_trino.run(config={"vars": {"factor": 2}})
    assert outcome.success, said(outcome)
    assert [row["amount"] for row in on_trino.rows("orders")] == [20, 40, 60, 80, 100, 120]
    assert on_trino.clones() == []


def test_trino_on_another_catalog_is_found_before_anything_is_built(
    on_trino: Shop,
    home: FloeHome,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "manifest.yaml"
    compute = yaml.safe_load(path.read_text())["plugins"]["compute"]
    other = Services(tmp_path_factory.mktemp("other"))
    try:
        for name, value in other.environment.items():
            monkeypatch.setenv(name, value)
        manifest = yaml.safe_load(other.write_manifest(path).read_text())
        path.write_text(
            yaml.safe_dump({**manifest, "plugins": {**manifest["plugins"], "compute": {"type": "duckdb"}}})
        )
        assert on_trino.run().success
        catalog = open_catalog(**{name: other.plugins()[name] for name in ("catalog", "storage")}, home=home)
        before = catalog.load_table(("shop", "orders")).metadata
        path.write_text(yaml.safe_dump({**manifest, "plugins": {**manifest["plugins"], "compute": compute}}))
        outcome = on_trino.run()
        assert not outcome.success
        assert "it is another catalog. Correct plugins.compute.config.catalog" in said(outcome)
        assert catalog.load_table(("shop", "orders")).metadata == before
    finally:
        other.stop()
