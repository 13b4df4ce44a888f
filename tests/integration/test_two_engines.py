"""Products on two engines, as they are compiled and defined; runs of them are in tests/trino."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from floe_dagster.compilation.bundle import ASSET_INDEX, Bundle
from floe_dagster.compilation.changes import ProductView, product_changes
from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.compilation.result import CompileResult
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.findings import Finding
from floe_dagster.home import FloeHome
from floe_dagster.schemas.product_index import Asset
from tests.conftest import MANIFEST, SPEC

pytestmark = pytest.mark.slow

DUCKDB: dict[str, Any] = {"type": "duckdb"}
TRINO: dict[str, Any] = {
    "type": "trino",
    "config": {
        "host": "nowhere.invalid",
        "port": 8443,
        "http_scheme": "https",
        "catalog": "lake",
        "user": "etl",
        "password": {"secret": "trino-login", "key": "password"},
    },
}
SHARED: dict[str, Any] = {
    "catalog": {"type": "rest", "config": {"uri": "http://nowhere.invalid", "warehouse": "w"}},
    "storage": {"type": "s3", "config": {"bucket": "b"}},
}


@pytest.fixture
def product(shop: Path) -> Path:
    """A seed and staging on the default engine, a heavy model, and a mart that reads it."""
    platform(shop, DUCKDB, TRINO)
    engines(shop, heavy="trino")
    (shop / "seeds").mkdir()
    (shop / "seeds" / "raw.csv").write_text("id\n1\n")
    models = shop / "models"
    (models / "daily.sql").unlink()
    (models / "orders.sql").write_text("select id from {{ ref('raw') }}\n")
    (models / "heavy.sql").write_text("select id, '{{ target.type }}' as engine from {{ ref('orders') }}\n")
    (models / "mart.sql").write_text("select id from {{ ref('heavy') }}\n")
    return shop


def platform(shop: Path, compute: dict[str, Any], *further: dict[str, Any], **more: Any) -> None:
    plugins = {"compute": compute, "additional_compute": list(further), **SHARED}
    (shop.parent / "manifest.yaml").write_text(MANIFEST + yaml.safe_dump({"plugins": plugins, **more}))


def engines(shop: Path, **named: str) -> None:
    transforms = [
        {"name": name, **({"compute": named[name]} if name in named else {})}
        for name in sorted({"orders", "heavy", "mart", *named})
    ]
    (shop / "floe.yaml").write_text(SPEC + yaml.safe_dump({"transforms": transforms}))


def compiled(product: Path, home: FloeHome) -> CompileResult:
    result = compile_product(product, home=home)
    assert result.bundle is not None, result.findings
    return result


def errors(product: Path, home: FloeHome) -> list[Finding]:
    result = compile_product(product, home=home)
    assert result.bundle is None
    return [finding for finding in result.findings if finding.severity == "error"]


def index_of(result: CompileResult) -> dict[str, Asset]:
    assert result.index is not None
    return {asset.name: asset for asset in result.index.assets}


def test_each_model_stands_where_its_engine_builds_it(product: Path, home: FloeHome) -> None:
    result = compiled(product, home)
    artifact = result.artifact
    assert artifact is not None and artifact.plugins is not None and artifact.transforms is not None
    assert list(artifact.plugins.engines()) == ["duckdb", "trino"]
    assert {model.name: model.compute for model in artifact.transforms.models} == {
        "orders": "duckdb",
        "heavy": "trino",
        "mart": "duckdb",
    }
    assert [output["type"] for output in (artifact.dbt_profiles or {})["shop"]["outputs"].values()] == [
        "duckdb"
    ]
    assets = index_of(result)
    assert assets["heavy"].engine == "trino"
    assert assets["heavy"].relation == ("lake", "floe_audit_shop", "heavy")
    assert assets["heavy"].relations["duckdb"] == ("shop", "main", "heavy")
    assert assets["orders"].engine == assets["raw"].engine == "duckdb"
    assert assets["orders"].relations["trino"] == ("lake", "floe_audit_shop", "orders")
    assert result.bundle is not None
    manifest = result.bundle.dbt_manifest()
    assert manifest["metadata"]["adapter_type"] == "duckdb"
    assert manifest["nodes"]["model.shop.heavy"]["database"] == "lake"
    assert manifest["nodes"]["model.shop.heavy"]["config"]["on_table_exists"] == "replace"


def test_the_other_way_round(product: Path, home: FloeHome) -> None:
    platform(product, TRINO, DUCKDB)
    engines(product, mart="duckdb")
    result = compiled(product, home)
    assets = index_of(result)
    assert {name: asset.engine for name, asset in assets.items()} == {
        "raw": "trino",
        "orders": "trino",
        "heavy": "trino",
        "mart": "duckdb",
    }
    assert assets["mart"].relation == ("shop", "main", "mart")
    assert assets["heavy"].relations["duckdb"] == ("shop", "main", "heavy")


def test_the_definitions_say_the_engine(product: Path, home: FloeHome) -> None:
    (product / "models" / "wide.sql").write_text(
        "{{ config(materialized='view') }}\nselect id from {{ ref('heavy') }}\n"
    )
    engines(product, heavy="trino", wide="trino")
    result = compiled(product, home)
    assert result.bundle is not None
    definitions = build_product_definitions(result.bundle, product_dir=product, home=home)
    graph = definitions.resolve_asset_graph()
    found = {key.path[-1]: graph.get(key) for key in graph.get_all_asset_keys() if key.path[0] == "shop"}
    assert {name: node.metadata["floe/engine"] for name, node in found.items() if len(name) < 7} == {
        "raw": "duckdb",
        "orders": "duckdb",
        "heavy": "trino",
        "wide": "trino",
        "mart": "duckdb",
    }
    assert found["wide"].kinds == {"dbt", "view", "trino"} and found["raw"].kinds == {
        "dbt",
        "seed",
        "duckdb",
    }
    assert found["heavy"].kinds == {"dbt", "table", "iceberg"}
    # One step, whatever the engines: its run needs the secrets of both.
    job = definitions.resolve_job_def("shop_run")
    assert {key for key in job.tags if key.startswith("floe/engine")} == {
        "floe/engine.duckdb",
        "floe/engine.trino",
    }
    (op,) = job.graph.node_dict.values()
    assert op.definition.pools == {"shop_writer"}
    config: Any = job.tags.get("dagster-k8s/config")
    assert "FLOE_SECRET_TRINO_LOGIN_PASSWORD" in str(config)


def test_its_health_is_that_of_both_engines(
    product: Path, home: FloeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOE_SECRET_TRINO_LOGIN_PASSWORD", "hush")
    trino = {**TRINO, "config": {**TRINO["config"], "host": "127.0.0.1", "port": 1, "retries": 1}}
    platform(product, DUCKDB, trino)
    document = yaml.safe_load((product.parent / "manifest.yaml").read_text())
    document["plugins"]["catalog"]["config"]["uri"] = "http://127.0.0.1:1"
    (product.parent / "manifest.yaml").write_text(yaml.safe_dump(document))
    bundle = compiled(product, home).bundle
    assert bundle is not None
    made = build_product_definitions(bundle, product_dir=product, home=home)
    outcome = made.resolve_job_def("shop_platform_check").execute_in_process(raise_on_error=False)
    (check,) = outcome.get_asset_check_evaluations()
    assert not check.passed
    assert "plugins.additional_compute (trino).config.host and port" in (check.description or "")


def test_an_engine_that_no_model_names_needs_nothing(product: Path, home: FloeHome) -> None:
    engines(product)
    result = compiled(product, home)
    assert result.artifact is not None and result.artifact.plugins is not None
    assert result.artifact.plugins.additional_compute is None
    assert not index_of(result)["heavy"].relations


def test_what_moves_to_another_engine_is_a_change(product: Path, home: FloeHome) -> None:
    engines(product)
    before = ProductView.of_result(compiled(product, home))
    engines(product, heavy="trino")
    after = ProductView.of_result(compiled(product, home))
    assert before is not None and after is not None
    changed = {change.path: (change.before, change.after) for change in product_changes(before, after)}
    assert changed["tables.heavy.engine"] == ("duckdb", "trino")
    assert "tables.mart.engine" not in changed


@pytest.mark.parametrize(
    ("file", "sql", "reader"),
    [
        ("orders.sql", "{{ config(materialized='view') }}\nselect id from {{ ref('raw') }}\n", "heavy"),
        ("heavy.sql", "select id from {{ ref('raw') }}\n", "heavy"),
        ("heavy.sql", "{{ config(materialized='view') }}\nselect id from {{ ref('orders') }}\n", "mart"),
    ],
)
def test_only_published_tables_cross(product: Path, home: FloeHome, file: str, sql: str, reader: str) -> None:
    (product / "models" / file).write_text(sql)
    (finding,) = errors(product, home)
    assert (finding.code, finding.model, finding.file) == (
        "unpublished-crossing",
        reader,
        f"shop/models/{reader}.sql",
    )
    assert "only published tables cross" in finding.message and "publish: true" in (finding.fix or "")


def test_a_name_in_upper_case_does_not_cross(product: Path, home: FloeHome) -> None:
    path = product / "models" / "orders.sql"
    path.write_text("{{ config(alias='Orders') }}\n" + path.read_text())
    (finding,) = errors(product, home)
    assert (finding.code, finding.model, finding.allowed) == ("upper-case-name", "heavy", "orders")
    # Where only DuckDB reads it, it is a name like any other.
    engines(product, mart="trino")
    compiled(product, home)


def test_a_published_view_crosses_and_so_does_what_an_ephemeral_model_reads(
    product: Path, home: FloeHome
) -> None:
    (product / "models" / "orders.sql").write_text(
        "{{ config(materialized='view', meta={'floe': {'publish': true}}) }}\nselect id from {{ ref('raw') }}\n"
    )
    (product / "models" / "part.sql").write_text(
        "{{ config(materialized='ephemeral') }}\nselect id from {{ ref('orders') }}\n"
    )
    (product / "models" / "heavy.sql").write_text("select id from {{ ref('part') }}\n")
    engines(product, heavy="trino")
    assert index_of(compiled(product, home))["heavy"].deps == ("model.shop.orders",)
    engines(product, heavy="trino", part="trino")
    (finding,) = errors(product, home)
    assert finding.code == "compute-of-ephemeral" and finding.file == "shop/floe.yaml"
    (product / "models" / "part.sql").write_text(
        "{{ config(materialized='ephemeral') }}\nselect id from {{ ref('raw') }}\n"
    )
    engines(product, heavy="trino")
    (finding,) = errors(product, home)
    assert (finding.code, finding.model) == ("unpublished-crossing", "heavy")


def test_a_test_may_not_compare_what_only_one_engine_has(product: Path, home: FloeHome) -> None:
    (product / "tests").mkdir()
    test = product / "tests" / "complete.sql"
    sql = "select id from {{ ref('orders') }} except select id from {{ ref('heavy') }}\n"
    test.write_text(sql)
    (finding,) = errors(product, home)
    assert (finding.code, finding.file) == ("test-after-publication", "shop/tests/complete.sql")
    assert "withholds: [heavy]" in (finding.fix or "")
    test.write_text("{{ config(meta={'floe': {'withholds': ['heavy']}}) }}\n" + sql)
    compiled(product, home)
    test.write_text("select id from {{ ref('raw') }} except select id from {{ ref('heavy') }}\n")
    (finding,) = errors(product, home)
    assert (finding.code, finding.file) == ("unpublished-crossing", "shop/tests/complete.sql")


def test_what_an_engine_must_not_build_is_found_for_its_models_alone(product: Path, home: FloeHome) -> None:
    for name in ("heavy", "mart"):
        path = product / "models" / f"{name}.sql"
        path.write_text("{{ config(on_table_exists='drop') }}\n" + path.read_text())
    (finding,) = errors(product, home)
    assert (finding.code, finding.model) == ("drops-its-table", "heavy")


def test_a_model_that_its_engine_does_not_have(product: Path, home: FloeHome) -> None:
    (product / "models" / "mart.sql").unlink()
    engines(product, heavy="trino")
    (product / "floe.yaml").write_text(SPEC + "transforms: [{name: orders}, {name: heavy, compute: trino}]\n")
    (product / "models" / "heavy.sql").write_text(
        "{{ config(enabled=target.type == 'duckdb') }}\nselect id from {{ ref('orders') }}\n"
    )
    (finding,) = errors(product, home)
    assert (finding.code, finding.file) == ("model-not-on-engine", "shop/models/heavy.sql")


def test_an_error_of_one_adapter_alone_is_found(product: Path, home: FloeHome) -> None:
    (product / "models" / "heavy.sql").write_text(
        "{% if target.type == 'trino' %}{{ ref('nowhere') }}{% endif %}\nselect id from {{ ref('orders') }}\n"
    )
    found = errors(product, home)
    assert found and all(finding.code == "dbt-parse" for finding in found)
    assert "nowhere" in found[0].message


def test_an_engine_that_the_platform_does_not_list_or_approve(product: Path, home: FloeHome) -> None:
    platform(product, DUCKDB)
    (finding,) = errors(product, home)
    assert (finding.code, finding.field) == ("unsupported-compute", "transforms[0].compute")
    assert finding.allowed == "duckdb" and "additional_compute" in (finding.fix or "")
    platform(product, DUCKDB, TRINO)
    spec = product / "floe.yaml"
    text = spec.read_text()
    spec.write_text(text.replace("compute: trino", "compute: trinno"))
    (finding,) = errors(product, home)
    assert finding.code == "unsupported-compute" and finding.fix == "Did you mean 'trino'?"
    spec.write_text(text)
    rules = {
        "approved_plugins": {"compute": ["duckdb"]},
        "governance": {"policy_enforcement_level": "strict"},
    }
    platform(product, DUCKDB, TRINO, **rules)
    (finding,) = (each for each in errors(product, home) if each.code == "unapproved-plugin")
    assert finding.found == "trino" and finding.field == "plugins.additional_compute[0].type"


def test_a_catalog_that_the_further_engine_cannot_reach(product: Path, home: FloeHome) -> None:
    plugins = {"compute": DUCKDB, "additional_compute": [TRINO]}
    (product.parent / "manifest.yaml").write_text(MANIFEST + yaml.safe_dump({"plugins": plugins}))
    (finding,) = errors(product, home)
    assert (finding.code, finding.field) == ("unshared-catalog", "plugins.additional_compute[0].type")


def test_a_seed_stays_on_the_default_engine(product: Path, home: FloeHome) -> None:
    engines(product, raw="trino")
    found = errors(product, home)
    assert [finding.code for finding in found] == ["transform-without-model"]


def test_a_bundle_of_before_runs_on_its_one_engine(
    product: Path, home: FloeHome, instance: dg.DagsterInstance
) -> None:
    """An index without engines, as it was written before there were several."""
    (product.parent / "manifest.yaml").write_text(MANIFEST)
    engines(product)
    result = compiled(product, home)
    assert result.bundle is not None
    older = json.loads(result.bundle.read(ASSET_INDEX))
    del older["version"]
    for asset in older["assets"]:
        del asset["engine"]
    with zipfile.ZipFile(result.bundle.path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(result.bundle.path, "w") as archive:
        for name, data in (content | {ASSET_INDEX: json.dumps(older).encode()}).items():
            archive.writestr(name, data)
    bundle = Bundle.open(result.bundle.path)
    definitions = build_product_definitions(bundle, product_dir=product, home=home)
    outcome = definitions.resolve_job_def("shop_run").execute_in_process(instance=instance)
    assert outcome.success
    assert len(outcome.asset_materializations_for_node("shop_dbt")) == 4
