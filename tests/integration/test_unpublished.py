"""Why a model, or a whole product, becomes no table: said when it is compiled, run and looked for."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from floe_dagster.cli import main
from floe_dagster.compilation.documents import read_document
from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.compilation.unpublished import DbtProject, check_published, model_unpublished
from floe_dagster.compilation.validation import parse_product
from floe_dagster.findings import Finding
from floe_dagster.home import FloeHome
from tests.conftest import MANIFEST, SPEC

SETTINGS = """\
name: shop
version: 1.0.0
profile: shop
models: {shop: {layer: {+materialized: ephemeral}, marts: {+materialized: view}}}
"""
# What a model says of itself: in its SQL, in its YAML, or by its folder in dbt_project.yml.
MODELS = {
    "plain.sql": "select 1 as id",
    "written.sql": "{{ config(materialized='view') }} select 1 as id",
    "layer/inlined.sql": "select 1 as id",
    "inlined_too.sql": "{{ config(materialized='ephemeral', meta={'floe': {'publish': true}}) }} select 1 as id",
    "kept.sql": "{{ config(materialized='table', meta={'floe': {'publish': false}}) }} select 1 as id",
    "kept_view.sql": "{{ config(meta={'floe': {'publish': false}}) }} select 1 as id",
    "marts/mart.sql": "select 1 as id",
    "marts/kept_mart.sql": "{{ config(meta={'floe': {'publish': false}}) }} select 1 as id",
    "marts/shown_mart.sql": "{{ config(meta={'floe': {'publish': true}}) }} select 1 as id",
    "golden.sql": "select 1 as id",
    "kept_by_yaml.sql": "select 1 as id",
    "tabled.sql": "{{ config(materialized='table') }} select 1 as id",
    "grown.sql": "{{ config(materialized='incremental') }} select 1 as id",
    "off.sql": "{{ config(enabled=false) }} select 1 as id",
}
YAML = "models: [{name: kept_by_yaml, config: {meta: {floe: {publish: false}}}}]\n"
TRANSFORMS = "transforms:\n" + "".join(
    f"  - {{name: {Path(name).stem}{', tier: gold' if name == 'golden.sql' else ''}}}\n"
    for name in MODELS
    if name != "off.sql"
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[Finding]]:
    """A product with a model of each kind: its folder, dbt's own manifest of it, and what was found."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "workspace.yaml").write_text("load_from: []\n")
    (folder / "manifest.yaml").write_text(MANIFEST)
    product = folder / "shop"
    for name, sql in MODELS.items():
        path = product / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(sql + "\n")
    (product / "models" / "kept.yml").write_text(YAML)
    (product / "seeds").mkdir()
    (product / "seeds" / "raw.csv").write_text("id\n1\n")
    (product / "floe.yaml").write_text(SPEC + TRANSFORMS)
    (product / "dbt_project.yml").write_text(SETTINGS)
    result = compile_product(product, home=FloeHome(folder / "home"), environ={})
    assert result.bundle is not None, result.findings
    return product, result.bundle.dbt_manifest(), result.findings


def project(settings: str = SETTINGS) -> DbtProject:
    return DbtProject("shop", "shop", yaml.safe_load(settings))


@pytest.mark.parametrize(
    ("name", "told", "fix"),
    [
        ("plain", "model 'plain' is a view, which is dbt's default", "at the top of shop/models/plain.sql"),
        ("written", "model 'written' is a view, and only tables", "in shop/models/written.sql"),
        ("inlined", "'inlined' is ephemeral", "in place of ephemeral"),
        # Nobody builds it, so nobody can publish it.
        ("inlined_too", "'inlined_too' is ephemeral", "in place of ephemeral"),
        ("kept", "says `meta.floe.publish: false`", "Take `publish: false` out"),
        ("kept_view", "says `meta.floe.publish: false`", "Take `publish: false` out"),
        ("kept_by_yaml", "says `meta.floe.publish: false`", "Take `publish: false` out"),
        ("raw", "'raw' is a seed", "`seeds: {shop: {+meta: {floe: {publish: true}}}}`"),
        ("tabled", None, None),
        ("grown", None, None),
        ("shown_mart", None, None),
    ],
)
def test_a_model_says_what_it_is_and_what_makes_it_a_table(
    compiled: tuple[Path, dict[str, Any], list[Finding]], name: str, told: str | None, fix: str | None
) -> None:
    _product, manifest, _findings = compiled
    (node,) = (node for node in manifest["nodes"].values() if node["name"] == name)
    found = model_unpublished(node, project())
    assert (found is None) == (told is None)
    if found is not None:
        assert told and told in found.reason and fix and fix in found.fix


def test_a_gold_model_that_is_not_published_is_found(
    compiled: tuple[Path, dict[str, Any], list[Finding]],
) -> None:
    """Whether floe.yaml or the folder says that it is gold; not where somebody said that it stays unpublished."""
    product, _manifest, findings = compiled
    found = {finding.model: finding for finding in findings if finding.code == "gold-not-published"}
    assert {finding.severity for finding in found.values()} == {"warning"}
    assert {name: finding.place for name, finding in found.items()} == {
        "golden": f"shop/floe.yaml:{4 + 1 + list(MODELS).index('golden.sql') + 1}:26",
        "mart": "shop/models/marts/mart.sql:1",
    }
    line = (product / "floe.yaml").read_text().splitlines()[int(found["golden"].place.split(":")[1]) - 1]
    assert "golden" in line and line[25:].startswith("gold")


def of(manifest: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return dbt's manifest with these models and seeds alone."""
    nodes = {key: node for key, node in manifest["nodes"].items() if node["name"] in names}
    assert len(nodes) == len(names)
    return {**manifest, "nodes": nodes}


def findings_of(
    compiled: tuple[Path, dict[str, Any], list[Finding]],
    names: tuple[str, ...],
    files: tuple[str, ...] = (),
    settings: str = "name: shop\n",
) -> list[Finding]:
    product, manifest, _findings = compiled
    document = read_document(product / "floe.yaml", root=product.parent)
    spec = parse_product(document).value
    assert spec is not None
    return check_published(spec, document, of(manifest, *names), files, project(settings), None)


@pytest.mark.parametrize(
    ("names", "files", "told", "fix", "severity"),
    [
        (
            ("plain",),
            (),
            "its model 'plain' is a view, which is dbt's default",
            "+materialized: table",
            "warning",
        ),
        (
            ("plain", "golden"),
            (),
            "its 2 models are views, which is dbt's default",
            "+materialized",
            "warning",
        ),
        (("plain", "raw"), (), "its model 'plain' is a view", "+materialized: table", "warning"),
        (("written",), (), "its model 'written' is a view", "in place of view", "warning"),
        (("plain", "written"), (), "its 2 models are views", "in place of view", "warning"),
        (("inlined",), (), "its model 'inlined' is ephemeral", "in place of ephemeral", "warning"),
        (("kept",), (), "its model 'kept' says `meta.floe.publish: false`", "Take `publish: false`", "info"),
        (("kept", "kept_view", "raw"), (), "its 2 models are kept from publication", "Take `publish", "info"),
        (
            ("kept", "plain", "inlined"),
            (),
            "are ephemeral (1), kept from",
            "Take `publish: false`",
            "warning",
        ),
        (("raw",), (), "it has seeds alone", "seeds: {shop: {+meta: {floe: {publish: true}}}}", "warning"),
        ((), (), "there is no model in shop/models/", "shop/models/shop.sql", "warning"),
        ((), ("models/off.sql",), "its model 'off' is disabled", "Take `enabled: false` out", "warning"),
        (
            (),
            ("models/a.sql", "models/b.py"),
            "its 2 models are disabled",
            "Take `enabled: false`",
            "warning",
        ),
        ((), ("models/schema.yml", "macros/m.sql"), "there is no model in shop/models/", "Write", "warning"),
        (
            ("plain",),
            ("models/off.sql",),
            "are disabled (`enabled: false`) (1) and views (1)",
            "Take",
            "warning",
        ),
    ],
)
def test_a_product_without_a_table_says_why(
    compiled: tuple[Path, dict[str, Any], list[Finding]],
    names: tuple[str, ...],
    files: tuple[str, ...],
    told: str,
    fix: str,
    severity: str,
) -> None:
    (finding,) = findings_of(compiled, names, files)
    assert finding.code == "nothing-published" and finding.severity == severity
    assert finding.message.startswith("shop publishes no table: ") and told in finding.message
    assert finding.fix and fix in finding.fix and finding.file == "shop/dbt_project.yml"


def test_a_product_says_so_exactly_where_it_has_no_table(
    compiled: tuple[Path, dict[str, Any], list[Finding]],
) -> None:
    tables = {"tabled", "grown", "shown_mart"}
    models = ["plain", "written", "inlined", "kept", "raw", "tabled", "shown_mart"]
    for names in itertools.chain.from_iterable(itertools.combinations(models, n) for n in range(8)):
        codes = [finding.code for finding in findings_of(compiled, names)]
        assert codes == ([] if tables & set(names) else ["nothing-published"]), names


def backticked(text: str) -> Iterator[str]:
    return iter(re.findall(r"`([^`]+)`", text))


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ("name: shop\n", ["models: {shop: {+materialized: table}}"]),
        ("name: shop\nmodels:\n", ["models: {shop: {+materialized: table}}"]),
        ("models: {other: {}}\n", ["shop: {+materialized: table}", "models:"]),
        ("models: {+materialized: view}\n", ["shop: {+materialized: table}", "models:"]),
        ("models: {shop: {a: {}}}\n", ["+materialized: table", "models:", "shop:"]),
        ("models: {shop: }\n", ["shop: {+materialized: table}", "models:"]),
    ],
)
def test_what_is_to_be_written_fits_what_stands_there(settings: str, parts: list[str]) -> None:
    said = project(settings).setting("models", "+materialized: table")
    assert list(backticked(said)) == parts and "shop/dbt_project.yml" in said
    yaml.safe_load(parts[0])


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["run", *arguments, "--format", "json"])
    (row,) = json.loads(capsys.readouterr().out)["products"]
    return code, row


@pytest.mark.slow
def test_what_the_report_says_makes_the_views_tables(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a first run that publishes nothing to a table, by what is printed alone."""
    monkeypatch.chdir(shop.parent)
    settings = shop / "dbt_project.yml"
    settings.write_text("name: shop\nprofile: shop\n")

    def show(name: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["show", name])
        return code, "".join(capsys.readouterr())

    assert main(["run"]) == 0
    printed = "".join(capsys.readouterr())
    assert printed.count("shop publishes no table: its 2 models are views, which is dbt's default") == 1
    assert "look at the rows" not in printed
    code, text = show("shop.orders")
    assert code == 2 and "model 'orders' is a view" in text and "run `floe-dagster run`" in text
    assert "nothing is published yet" not in text

    code, row = report(capsys)
    assert code == 0 and row["tables"] == 0
    line = next(backticked(row["nothing_published"]["fix"]))
    with settings.open("a") as file:
        file.write(line + "\n")
    code, text = show("shop.orders")
    assert code == 2 and "as the product was compiled last" in text
    assert main(["compile"]) == 0
    code, text = show("shop.orders")
    assert code == 2 and "did not publish it: it was no table then" in text

    code, row = report(capsys)
    assert code == 0 and row["tables"] == 2 and row["nothing_published"] is None
    code, text = show("shop.orders")
    assert code == 0 and "paid" in text and "note:" not in text


def test_a_run_without_a_single_asset_says_why(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model in ("orders", "daily"):
        (shop / "models" / f"{model}.sql").write_text("{{ config(enabled=false) }} select 1 as id\n")
    code, row = report(capsys, str(shop))
    assert code == 0 and row["assets"] == 0
    assert row["nothing_published"]["reason"].endswith("its 2 models are disabled (`enabled: false`)")


def test_a_run_that_fails_says_why_it_published_nothing(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (shop / "models" / "orders.sql").write_text("select * from nowhere\n")
    monkeypatch.chdir(shop.parent)
    code, row = report(capsys)
    said = row["nothing_published"]["reason"]
    assert code == 1 and said.startswith("shop published no table: everything was withheld (daily: ")
    assert "orders: dbt: error" in said and "Traceback" not in said
    assert main(["show", "shop.orders"]) == 2
    told = capsys.readouterr().err
    assert "the last run (" in told and "Runtime Error in model orders" in told and "nothing is" not in told
    (shop / "floe.yaml").write_text("kind: Other\n")
    code, row = report(capsys)
    assert code == 2 and row["nothing_published"]["reason"] == "shop published no table: it does not compile"
