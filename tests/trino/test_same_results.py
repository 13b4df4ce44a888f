"""The shipped products on DuckDB and on Trino, from the same files: what they publish is the same, cell by cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.home import FloeHome
from tests.conftest import shipped
from tests.services.conftest import Services
from tests.trino.comparison import differences
from tests.trino.shops import reached, said

# What the seeds have besides, from the first and from the second run on: what engines are known to see differently.
ADDED: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "customer_360": (
        {
            "raw_crm_customers": "501,\tTab and  spaces ,Straße@Example.com,de,consumer,2024-02-29,2024-04-23 10:09:23.123456\n"
            "502,   ,,İS,,1969-12-31,1969-12-31 23:59:59\n",
            "raw_transactions": "9001,501,1.005,eur,completed,2024-06-30 12:00:00.000001\n"
            "9002,501,-1.005,eur,completed,2024-06-30 12:00:00\n"
            "9003,502,2.675,,completed,2024-06-30 23:59:59.999999\n",
        },
        {"raw_transactions": "9004,502,1.115,eur,completed,2024-07-01 00:00:00\n"},
    ),
    "financial_risk": (
        {
            "raw_market_data": "ALX,2024-04-30,220.00005,eur\nBLX,2024-04-30,0.00015,eur\n",
            "raw_positions": "9001,1,ALX,2000000000,rates,2024-04-30\n9002,2,BLX,-1,rates,2024-04-30\n",
        },
        {"raw_positions": "9003,3,ALX,3,equity,2024-05-01\n"},
    ),
    "iot_telemetry": (
        {
            "raw_readings": "9001,1,2024-01-05 00:00:00.123456,2024-01-05 00:00:01.5,2.25\n",
            "raw_maintenance": "9001,EQ-001\t,Repair ,2024-03-12 10:18:54.000001,0.125\n",
        },
        # The first one corrects what was read before.
        {
            "raw_readings": "1,1,2024-01-01 00:50:00,2024-01-07 00:00:00,3.5\n"
            "9002,2,2024-01-06 00:00:00,2024-01-07 00:00:01,-9999.0\n"
        },
    ),
}

Publish = Callable[[str], list[dict[str, Table]]]


@pytest.fixture(params=sorted(ADDED))
def slug(request: pytest.FixtureRequest) -> str:
    """A shipped product."""
    return str(request.param)


@pytest.fixture
def publish(
    slug: str,
    cluster: Any,
    services: Services,
    catalog: Catalog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Publish]:
    """Runs the product twice on an engine and returns what was published each time; the catalog is empty afterwards."""

    def published(engine: str) -> list[dict[str, Table]]:
        compute = {"type": engine, **({"config": reached(cluster)} if engine == "trino" else {})}
        product = shipped(tmp_path / engine, slug)
        _write_manifest(services, tmp_path / engine / "manifests" / "local.yaml", compute)
        found = []
        try:
            for added in ADDED[slug]:
                for seed, lines in added.items():
                    with (product / "seeds" / f"{seed}.csv").open("a", encoding="utf-8") as file:
                        file.write(lines)
                _run(product, tmp_path / engine)
                found.append({name[-1]: catalog.load_table(name) for name in catalog.list_tables(slug)})
        finally:
            _forget(catalog, slug)
        return found

    for engine in ("duckdb", "trino"):
        (tmp_path / engine).mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    (tmp_path / "dagster").mkdir()
    yield published


def _write_manifest(services: Services, path: Path, compute: Mapping[str, Any]) -> None:
    manifest = yaml.safe_load(services.write_manifest(path).read_text())
    manifest["plugins"]["compute"] = compute
    path.write_text(yaml.safe_dump(manifest, sort_keys=False))


def _run(product: Path, folder: Path) -> None:
    home = FloeHome(folder / "home")
    compiled = compile_product(product, home=home)
    assert compiled.bundle is not None, compiled.findings
    definitions = build_product_definitions(compiled.bundle, product_dir=product, home=home)
    with dg.DagsterInstance.get() as instance:
        outcome = definitions.resolve_job_def(f"{product.name}_run").execute_in_process(
            raise_on_error=False, instance=instance
        )
    assert outcome.success, said(outcome)


def _forget(catalog: Catalog, slug: str) -> None:
    """Take the tables out of the catalog; their files stay, and are read from what was loaded before."""
    for schema in (slug, f"floe_audit_{slug}"):
        if catalog.namespace_exists(schema):
            for name in catalog.list_tables(schema):
                catalog.drop_table(name)
            for name in catalog.list_views(schema):
                catalog.drop_view(name)


def test_both_engines_publish_the_same(publish: Publish) -> None:
    on_duckdb, on_trino = publish("duckdb"), publish("trino")
    assert [sorted(tables) for tables in on_duckdb] == [sorted(tables) for tables in on_trino]
    different = []
    for number, (tables, others) in enumerate(zip(on_duckdb, on_trino, strict=True), 1):
        assert len(tables) == 6
        for name, table in tables.items():
            assert _written_by_trino(others[name]) and not _written_by_trino(table)
            found = differences(table, others[name])
            different += [f"{name} after run {number}: {difference}" for difference in found]
    assert not different, "\n".join(different)
    # The second run had something to do.
    assert any(differences(table, on_trino[1][name]) for name, table in on_trino[0].items())


def _written_by_trino(table: Table) -> bool:
    return any(
        "trino_query_id" in snapshot.summary.additional_properties
        for snapshot in table.metadata.snapshots
        if snapshot.summary is not None
    )
