"""Each version of a model is an asset and a table under its alias."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from floe_dagster.cli import main
from floe_dagster.compilation.result import CompileResult
from floe_dagster.definitions.asset_specs import asset_specs
from floe_dagster.definitions.compiling import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog

SCHEMA = """\
models:
  - name: dim
    latest_version: 2
    description: Customers.
    columns:
      - {name: id, data_type: integer, data_tests: [unique]}
      - {name: word, data_type: varchar, data_tests: [{accepted_values: {arguments: {values: [v1, v2]}}}]}
    versions:
      - v: 1
        deprecation_date: 2020-01-31
        config: {contract: {enforced: true}}
      - v: 2
        deprecation_date: COMING
        columns:
          - include: all
            exclude: [word]
          - {name: extra, description: New in version 2., data_tests: [not_null]}
      - v: 1.5
        config: {alias: dim_between}
        columns: [{include: all, exclude: [word]}]
unit_tests:
  - name: counts
    model: dim
    overrides: {macros: {is_incremental: false}}
    versions: {include: [2]}
    given: [{input: ref('orders'), rows: [{id: 1, status: a}]}]
    expect: {rows: [{id: 1, extra: 1}]}
"""
TRANSFORMS = """\
transforms:
  - {name: orders, tier: bronze}
  - {name: daily, tier: silver}
  - {name: dim, tier: bronze, tags: [every], table: {sort_by: [id]}}
  - {name: dim_v2, tier: silver, tags: [second], dependsOn: [orders]}
  - {name: newest, tier: gold, dependsOn: [dim]}
  - {name: pinned, tier: silver, dependsOn: [dim_v1]}
"""


@pytest.fixture
def versioned(shop: Path, home: FloeHome, tmp_path: Path) -> CompileResult:
    data = tmp_path / "data.csv"
    data.write_text("id\n1\n")
    coming = str(datetime.now(UTC).date() + timedelta(days=40))
    for name, text in {
        "dim_v1.sql": "select 1 as id, 'v1' as word",
        "dim_v2.sql": "{{ config(materialized='incremental') }} select id, 1 as extra from {{ ref('orders') }}"
        "{% if is_incremental() %} where id > (select max(id) from {{ this }}) {% endif %}",
        "dim_v1.5.sql": "select id + 1 as id from {{ ref('dim', v=1) }}",
        "newest.sql": "select extra from {{ ref('dim') }}",
        "pinned.sql": "select word from {{ ref('dim', v=1) }}",
        "orders.sql": f"select id, 'paid' as status from read_csv('{data}')",
        "dim.yml": SCHEMA.replace("COMING", coming),
    }.items():
        (shop / "models" / name).write_text(text)
    spec = shop / "floe.yaml"
    spec.write_text(spec.read_text() + TRANSFORMS)
    result = compile_product(shop, home=home)
    assert result.bundle is not None, [finding.to_text() for finding in result.findings]
    return result


def test_versions_are_assets_tables_and_checks(
    versioned: CompileResult,
    shop: Path,
    home: FloeHome,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert versioned.bundle is not None and versioned.index is not None
    assets = {asset.name: asset for asset in versioned.index.assets}
    names = {asset.id: asset.name for asset in versioned.index.assets}
    versions = {"dim_v1", "dim_v2", "dim_between"}
    assert set(assets) == {"orders", "daily", "newest", "pinned"} | versions
    deps = {name: {names[up] for up in asset.deps} for name, asset in assets.items()}
    assert (deps["newest"], deps["pinned"]) == ({"dim_v2"}, {"dim_v1"})
    assert deps["dim_between"] == {"dim_v1"}
    # A transform of the version's own name comes before the one that names all versions.
    assert {name: assets[name].group for name in versions} == {
        "dim_v1": "bronze",
        "dim_between": "bronze",
        "dim_v2": "silver",
    }
    assert (assets["dim_v1"].tags, assets["dim_v2"].tags) == (("every",), ("second",))
    assert (assets["dim_between"].table.sort_by, assets["dim_v2"].table.sort_by) == (("id",), None)
    assert [column.name for column in assets["dim_v2"].columns] == ["id", "extra"]
    checks = {(names[check.asset], check.name) for check in versioned.index.checks}
    assert {asset for asset, name in checks if name.startswith("unique_")} == versions
    assert {("dim_v2", "counts"), ("dim_v2", "not_null_dim_v2_extra")} <= checks
    assert asset_specs(versioned.index, shop).keys() == names.keys()
    assert versioned.artifact is not None
    models = {model.name: model for model in versioned.artifact.transforms.models}
    assert set(models) == set(assets) and models["newest"].depends_on == ["dim_v2"]

    found = {finding.model: finding for finding in versioned.findings if finding.code == "deprecated-model"}
    assert {name: finding.severity for name, finding in found.items()} == {
        "dim_v1": "warning",
        "dim_v2": "info",
    }
    assert (found["dim_v1"].file, found["dim_v1"].line) == ("shop/models/dim.yml", 2)
    assert (
        "2020-01-31" in found["dim_v1"].message and "dim_between, pinned read it" in found["dim_v1"].message
    )
    # dbt itself warns of the references.
    assert {finding.code for finding in versioned.findings} == {"deprecated-model", "dbt-parse"}
    assert {finding.severity for finding in versioned.findings} == {"warning", "info"}

    catalog = open_catalog(None, None, home=home)

    def rows(table: str) -> list[Any]:
        found = catalog.load_table(f"shop.{table}").scan().to_arrow().to_pylist()
        return sorted(next(iter(row.values())) for row in found)

    job = build_product_definitions(versioned.bundle, product_dir=shop, home=home).resolve_job_def("shop_run")
    assert job.execute_in_process().success
    assert [rows(name) for name in ("dim_v1", "dim_v2", "dim_between")] == [[1], [1], [2]]
    assert (rows("newest"), rows("pinned")) == ([1], ["v1"])
    assert not catalog.table_exists("shop.dim")
    # One version alone, which goes on where it is.
    (tmp_path / "data.csv").write_text("id\n1\n2\n")
    assert job.execute_in_process(asset_selection=[dg.AssetKey(["shop", "orders"])]).success
    outcome = job.execute_in_process(asset_selection=[dg.AssetKey(["shop", "dim_v2"])])
    built = {each.asset_key.path[-1] for each in outcome.asset_materializations_for_node("shop_dbt")}
    assert built == {"dim_v2"} and rows("dim_v2") == [1, 2]
    # The test of one version withholds that version, and what is built on it.
    (tmp_path / "data.csv").write_text("id\n1\n2\n3\n3\n")
    outcome = job.execute_in_process(raise_on_error=False)
    (failure,) = [event for event in outcome.all_events if event.is_step_failure]
    data = failure.step_failure_data.user_failure_data
    assert set(data.metadata["withheld"].value) == {"dim_v2", "newest"}
    assert rows("dim_v2") == [1, 2] and rows("orders") == [1, 2, 3, 3]
    monkeypatch.setenv("FLOE_HOME", str(home.path))
    assert main(["compile", str(shop)]) == 0
    assert main(["show", "shop.dim_v1", "--product-dir", str(shop)]) == 0
    assert "v1" in capfd.readouterr().out
