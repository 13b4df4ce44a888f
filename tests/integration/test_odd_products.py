"""Products with odd names, graphs and values: each is refused with its place, or its location loads.

dbt parses them here, so that what `tests/contract/test_servable.py` assumes of dbt's manifest is held against dbt.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from floe_dagster import load_product_definitions
from floe_dagster.cli import main
from floe_dagster.compilation import servable
from floe_dagster.compilation.bundle import BAKED_BUNDLE
from floe_dagster.definitions.compiling import compile_product, validate_product
from floe_dagster.definitions.state import state_key
from floe_dagster.findings import Finding
from floe_dagster.home import FloeHome

VERSIONS = "models:\n  - name: dim\n    latest_version: 2\n    versions: [{v: 1}, {v: 2}]\n"


def write(product: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = product / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def by_model(findings: list[Finding]) -> dict[str | None, Finding]:
    errors = [finding for finding in findings if finding.severity == "error"]
    found = {finding.model: finding for finding in errors}
    assert len(found) == len(errors), errors
    return found


def test_what_dbt_takes_and_nobody_can_serve_is_refused_with_its_place(shop: Path) -> None:
    write(
        shop,
        {
            "models/größe.sql": "select 1 as id",
            "models/a$b.sql": "select 1 as id",
            "seeds/prei$e.csv": "id\n1\n",
            "snapshots/odd.yml": "snapshots:\n\n  - name: läuft\n    relation: ref('orders')\n"
            "    config: {unique_key: id, strategy: check, check_cols: all}\n",
            "seeds/platform_manifest.csv": "id\n1\n",
            "models/dim_v1.sql": "select 1 as id",
            "models/dim_v2.sql": "select 2 as id",
            "models/dim.yml": VERSIONS,
            "models/grad.sql": "select 1 as id",
            "models/grad.yml": "models: [{name: grad, versions: [{v: 1, defined_in: grad, config: {alias: 20°}}]}]",
            "models/twice.sql": "{{ config(alias='elsewhere') }} select 1 as id",
            "seeds/twice.csv": "id\n1\n",
            "models/n.1.sql": "select 1 as id",
            "models/n_1.sql": "select 1 as id",
            "models/City.sql": "select 1 as id",
            "models/city.sql": "select 1 as id",
            "models/first.sql": "{{ config(materialized='view', alias='Same') }} select 1 as id",
            "models/second.sql": "{{ config(materialized='view', alias='same') }} select 1 as id",
            "models/p.sql": "select * from {{ ref('q') }}",
            "models/q.sql": "{{ config(materialized='ephemeral') }} select * from {{ ref('p') }}",
            "models/me.sql": "select * from {{ ref('me') }}",
        },
    )
    result = validate_product(shop)
    assert result.exit_code == 2
    found = by_model(result.findings)
    places = {
        name: (each.code, str(each.file).removeprefix("shop/"), each.line) for name, each in found.items()
    }
    assert places == {
        "größe": ("unsupported-name", "models/größe.sql", 1),
        "a$b": ("unsupported-name", "models/a$b.sql", 1),
        "prei$e": ("unsupported-name", "seeds/prei$e.csv", 1),
        "läuft": ("unsupported-name", "snapshots/odd.yml", 3),
        "platform_manifest": ("reserved-model-name", "seeds/platform_manifest.csv", 1),
        "20°": ("unsupported-name", "models/grad.sql", 1),
        "twice": ("duplicate-name", "seeds/twice.csv", 1),
        "n_1": ("duplicate-name", "models/n_1.sql", 1),
        "city": ("duplicate-name", "models/city.sql", 1),
        "second": ("duplicate-name", "models/second.sql", 1),
        "p": ("circular-ref", "models/p.sql", 1),
        "me": ("circular-ref", "models/me.sql", 1),
    }
    assert found["p"].found == "p -> q -> p"
    assert all((shop.parent / str(each.file)).is_file() and each.fix for each in found.values())


def test_odd_names_and_values_that_can_be_served_load(
    shop: Path, home: FloeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOE_HOME", str(home.path))
    write(
        shop,
        {
            "models/n.1.sql": "select 1 as id",
            "models/a-b.sql": "select 1 as id",
            "models/1st.sql": "select 1 as id",
            "models/select.sql": "select 1 as id",
            "models/input.sql": "select 1 as id",
            f"models/{'x' * 200}.sql": "select 1 as id",
            "models/orders_total.sql": "select 1 as id",
            "tests/total.sql": "select * from {{ ref('orders') }} where id > 1",
            "tests/größer.sql": "select * from {{ ref('orders') }} where id > 1",
            "tests/gräßer.sql": "select * from {{ ref('orders') }} where id > 2",
            "tests/type.sql": "select * from {{ ref('n.1') }} where id > 1",
            "models/odd.yml": """\
models:
  - name: orders
    description: "Größe | `of` an \\"order\\"\\n😀"
    config:
      tags: ["a b", "c/d/e", "", "größe", ".dagster/x", "dagster/kind/y"]
      meta: {owner: 5, classification: [1], floe: [x]}
    columns:
      - {name: "a b", data_type: "struct(a int)", config: {meta: {classification: [pii, {level: 3}]}, tags: ["", "/"]}}
      - {name: id, config: {meta: {classification: 3}}, data_tests: [unique, {unique: {name: unique_id}}]}
""",
        },
    )
    spec = shop / "floe.yaml"
    spec.write_text(
        spec.read_text().replace("owner: shop@example.com", "owner: 'Das Team (Größe) <x>'")
        + "schedule: {cron: '@daily', timezone: Etc/GMT+2}\nfreshness: {fail_after: 36500d}\n"
    )
    text = spec.read_text().replace(
        "metadata: {", "metadata: {labels: {'a b': 'c/d', größe: '', x: '" + "y" * 99 + "'}, "
    )
    spec.write_text(text)
    result = compile_product(shop, home=home)
    assert result.bundle_path is not None, [finding.to_text() for finding in result.findings]
    (shop / "target").mkdir()
    shutil.copy(result.bundle_path, shop / "target" / BAKED_BUNDLE)
    definitions = load_product_definitions(shop)
    dg.Definitions.validate_loadable(definitions)
    graph = definitions.resolve_asset_graph()
    names = {key.path[-1] for key in graph.get_all_asset_keys()}
    assert {"n.1", "a-b", "1st", "select", "input", "x" * 200, "orders_total", "orders", "daily"} <= names
    checks = {key.name for key in graph.asset_check_keys}
    assert {"total_1", "gr__er", "gr__er_1", "type", "unique_id", "unique_orders_id"} <= checks


def refused(text: str) -> bool:
    return "has a name that Dagster does not take" in text and "models/größe.sql:1" in text


@pytest.mark.slow
def test_commands_and_compile_assets_say_the_same(
    shop: Path,
    home: FloeHome,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FLOE_HOME", str(home.path))

    def compiled_in_dagster() -> Any:
        job = load_product_definitions(shop).resolve_job_def("shop_compile")
        return job.execute_in_process(instance=instance, raise_on_error=False)

    storage = instance.defs_state_storage
    assert compiled_in_dagster().success and storage is not None
    good = storage.get_latest_version(state_key("shop"))
    write(shop, {"models/größe.sql": "select 1 as id"})
    for command in ("validate", "compile", "run"):
        capfd.readouterr()
        assert main([command, str(shop)]) == 2
        assert refused(capfd.readouterr().err)
    outcome = compiled_in_dagster()
    failure = next(event for event in outcome.all_events if event.is_step_failure)
    assert not outcome.success
    assert refused(str(failure.step_failure_data.user_failure_data.description))
    assert storage.get_latest_version(state_key("shop")) == good
    assert sorted(path.stem for path in home.state_dir("shop").glob("*.zip")) == [good]


def test_what_no_check_foresees_is_a_finding_and_never_stored(
    shop: Path, home: FloeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = compile_product(shop, home=home)
    assert good.bundle_path is not None and good.findings == []
    # Where nothing changed, nobody is asked, and Dagster is not imported.
    code = f"import sys; from floe_dagster.cli import main; main(['compile', {str(shop)!r}]); print('dagster' in sys.modules)"
    again = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "FLOE_HOME": str(home.path)},
        capture_output=True,
        text=True,
    )
    assert "unchanged" in again.stdout and again.stdout.endswith("False\n")
    # A fault of a kind that nobody thought of: here one that somebody did, with that check away.
    monkeypatch.setattr(servable, "check_servable", lambda *_arguments: [])
    manifest = shop.parent / "manifest.yaml"
    manifest.write_text(
        manifest.read_text()
        + "governance: {policy_enforcement_level: strict, naming: {pattern: medallion}}\n"
    )
    write(shop, {"models/größe.sql": "select 1 as id"})
    for result in (validate_product(shop), compile_product(shop, home=home)):
        assert result.exit_code == 2 and result.bundle_path is None
        # What the policies have to say is not lost.
        assert {finding.code for finding in result.findings} == {"model-name", "cannot-be-served"}
        (finding,) = [each for each in result.findings if each.code == "cannot-be-served"]
        assert (finding.file, finding.line) == ("shop/floe.yaml", 1)
        assert "größe" in finding.message and finding.fix
        assert finding.to_dict() in result.summary["findings"]
    assert list(home.state_dir("shop").glob("*")) == [good.bundle_path]
    assert [path for path in (home.path / "compile").iterdir() if path.name.startswith("stage")] == []
