"""What `diff`, `explain`, `show` and `schema` print, for people and for machines."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from floe_dagster.cli import main, run_command
from floe_dagster.definitions import product_run

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def floe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.setenv("FLOE_HOME", str(tmp_path / "home"))

    def run(*arguments: str | Path) -> tuple[int, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out if "json" in arguments else printed.out + printed.err

    return run


def changes_of(report: list[dict[str, Any]]) -> dict[str, tuple[Any, Any]]:
    assert report[0]["compiled"]
    return {change["path"]: (change["before"], change["after"]) for change in report[0]["changes"]}


@pytest.mark.slow
def test_diff_says_what_changes_for_readers_and_for_governance(shop: Path, floe: Command) -> None:
    code, text = floe("diff", shop)
    assert code == 0 and "shop (never compiled)" in text and "tables.orders" in text
    assert floe("compile", shop)[0] == 0
    code, text = floe("diff", shop)
    assert code == 0 and "shop: 0 changes" in text

    (shop / "models" / "orders.sql").write_text("select 1 as id, 2 as amount\n")
    (shop / "models" / "new.sql").write_text("select * from {{ ref('orders') }}\n")
    (shop / "models" / "schema.yml").write_text(
        "models:\n- name: orders\n  columns:\n  - {name: id, data_type: integer, data_tests: [unique]}\n"
    )
    manifest = shop.parent / "manifest.yaml"
    manifest.write_text(manifest.read_text() + "governance: {data_retention_days: 30}\n")
    before = {path: path.read_bytes() for path in sorted(shop.rglob("*")) if path.is_file()}
    code, text = floe("diff", shop, "--format", "json")
    changes = changes_of(json.loads(text))
    assert changes["data_retention_days"] == ("(absent)", 30)
    assert changes["tables.orders.checks.unique_orders_id"] == ("(absent)", "error")
    assert changes["tables.orders.columns.id"][1]["type"] == "integer"
    assert changes["tables.new"][1]["reads"] == ["orders"]
    assert set(changes["tables.orders.sql"]) and "tables.daily.sql" not in changes
    assert {path: path.read_bytes() for path in sorted(shop.rglob("*")) if path.is_file()} == before

    (shop / "models" / "new.sql").write_text("select {{ broken\n")
    code, text = floe("diff", shop, "--format", "json")
    report = json.loads(text)[0]
    assert code == 2 and not report["compiles"] and report["findings"][0]["file"] == "shop/models/new.sql"
    code, text = floe("diff", shop)
    assert code == 2 and "shop/models/new.sql" in text


def test_explain_names_the_layer_that_decided_and_those_overruled(shop: Path, floe: Command) -> None:
    manifest = shop.parent / "manifest.yaml"
    manifest.write_text(
        manifest.read_text() + "governance: {policy_enforcement_level: warn, data_retention_days: 90}\n"
    )
    spec = shop / "floe.yaml"
    spec.write_text(spec.read_text() + "governance: {policy_enforcement_level: strict}\n")
    code, text = floe("explain", shop)
    assert code == 0 and "effective level strict" in text and "manifest.yaml:4" in text
    code, text = floe("explain", shop, "--format", "json")
    governance = json.loads(text)[0]["governance"]
    decided = {each["field"]: each for each in governance["decisions"]}
    level = decided["policy_enforcement_level"]
    assert (level["value"], level["decided_by"], level["file"]) == (
        "strict",
        "product shop",
        "shop/floe.yaml",
    )
    assert level["overruled"] == [["manifest test-platform", "warn"]]
    assert decided["data_retention_days"]["decided_by"] == "manifest test-platform"


@pytest.fixture
def published(shop: Path, floe: Command) -> Path:
    view = shop / "models" / "paid.sql"
    view.write_text(
        "{{ config(materialized='view') }}\nselect * from {{ ref('orders') }} where status = 'paid'\n"
    )
    (shop / "models" / "inlined.sql").write_text("{{ config(materialized='ephemeral') }}\nselect 1 as id\n")
    (shop / "models" / "off.sql").write_text("{{ config(enabled=false) }}\nselect 1 as id\n")
    kept = "{{ config(meta={'floe': {'publish': false}}) }}\nselect 1 as id\n"
    (shop / "models" / "kept.sql").write_text(kept)
    (shop / "seeds").mkdir()
    (shop / "seeds" / "raw.csv").write_text("id\n1\n")
    code, text = floe("run", shop, "--format", "json")
    assert code == 0 and {row["table"] for row in json.loads(text)["tables"]} == {"shop.orders", "shop.daily"}
    return shop


def test_show_prints_rows_and_snapshots(published: Path, floe: Command) -> None:
    product = ("--product-dir", published)
    code, text = floe("show", "shop.orders", *product)
    assert code == 0 and "paid" in text and "snapshot" in text
    code, text = floe("show", "shop.orders", "--format", "json", "--limit", "1", *product)
    shown = json.loads(text)
    assert code == 0 and len(shown["rows"]) == 1 and len(shown["snapshots"]) == 1
    assert shown["snapshots"][0]["properties"]["floe.product-version"] == "1.0.0"


def test_run_says_why_a_table_is_not_published(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (published / "models" / "orders.sql").write_text("select 'x' as id, 'paid' as status\n")
    capsys.readouterr()
    assert main(["run", str(published), "--format", "json"]) == 1
    printed = capsys.readouterr()
    (row,) = json.loads(printed.out)["products"]
    assert row["success"] is False
    for said in (printed.err, row["error"]):
        assert "not published, their last snapshots stand:" in said
        assert "- orders: " in said and "- daily: it reads orders" in said and "start over" in said
        assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.usefixtures("retried_at_once")
def test_run_says_why_where_the_catalog_is_away(shop: Path, floe: Command) -> None:
    with (shop.parent / "manifest.yaml").open("a") as file:
        away = "{type: rest, config: {uri: 'http://127.0.0.1:9', warehouse: w, credential_vending: false}}"
        file.write(f"plugins:\n  catalog: {away}\n")
    code, text = floe("run", shop)
    # Each of the two tries says it, and the report.
    assert code == 1 and text.count("nothing listens there") == text.count("http://127.0.0.1:9") == 3
    assert "shop published no table: the run failed: " in text
    log = text[text.index("shop: compiling") :]
    assert log.index("waiting 0 s before another try") > log.index("nothing listens there")
    assert "Traceback" not in text and "Exceeded" not in text


def test_run_says_once_what_an_error_that_nobody_foresaw_was(
    shop: Path, floe: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("seven is no even number") from KeyError("even")

    monkeypatch.setattr("floe_dagster.execution.run.plan_phases", fail)
    code, text = floe("run", shop)
    assert code == 1 and "shop: ValueError: seven is no even number\nshop: caused by KeyError: 'even'" in text
    # It would be the same another time, so there is none; the report says it once more.
    assert text.count("seven") == 2 and "another try" not in text and "Traceback" not in text
    assert "This is a fault of floe-dagster or of a library" in text


@pytest.mark.usefixtures("retried_at_once")
def test_run_reports_the_tables_of_an_attempt_that_died_after_its_commit(
    shop: Path, floe: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = product_run.materialization, []

    def die_once(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError("the process died between the commit and its event")
        return real(*arguments)

    monkeypatch.setattr(product_run, "materialization", die_once)
    (shop / "models" / "broken.sql").write_text("select * from nowhere\n")
    code, text = floe("run", shop, "--format", "json")
    report = json.loads(text[text.index("{") :])
    assert code == 1 and "broken: dbt: error" in report["products"][0]["error"]
    assert {entry["table"]: entry["rows"] for entry in report["tables"]} == {
        "shop.orders": 1,
        "shop.daily": 1,
    }
    assert report["products"][0]["rows"] == 2


def test_one_product_that_cannot_be_run_does_not_stop_the_others(
    shop: Path, floe: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(shop, shop.parent / "store")
    for file in ("floe.yaml", "dbt_project.yml"):
        (other / file).write_text((other / file).read_text().replace("name: shop", "name: store"))
    real = run_command._run_product

    def fail(result: Any, *arguments: Any) -> Any:
        if result.slug == "shop":
            raise KeyError("dagster/row_count")
        return real(result, *arguments)

    monkeypatch.setattr(run_command, "_run_product", fail)
    code, text = floe("run", shop, other)
    assert code == 1 and "KeyError: 'dagster/row_count'; the traceback is in" in text
    assert "not run" in text and "store.orders" in text and "Traceback" not in text


def test_show_of_what_is_not_there_says_why_and_what_is(published: Path, floe: Command) -> None:
    (published / "models" / "new.sql").write_text("select 1 as id\n")
    for name, told in (
        ("shop.nothing", "shop has no model of that name"),
        ("shop.nothing", "there are: daily, orders"),
        ("shop.order", "Did you mean 'orders'?"),
        ("shop.paidd", "Did you mean 'paid'?"),
        ("shop.paid", "model 'paid' is a view, and only tables are published"),
        ("shop.paid", "there are: daily, orders"),
        ("shop.inlined", "model 'inlined' is ephemeral"),
        ("shop.kept", "it says `meta.floe.publish: false`"),
        ("shop.raw", "'raw' is a seed, and seeds are not published by themselves"),
        # Since `new` came, nobody knows whether it is disabled or new.
        ("shop.off", "shop/models/off.sql is no part of what was compiled last"),
        ("shop.new", "shop/models/new.sql is no part of what was compiled last"),
        ("shop", "is no PRODUCT.MODEL"),
        ("shop.", "is no PRODUCT.MODEL"),
        ("shop.orders.id", "there are: daily, orders"),
        ("nowhere.orders", "there are: shop"),
        ("../x.y", "is no PRODUCT.MODEL"),
    ):
        code, text = floe("show", name, "--product-dir", published)
        assert code == 2 and text.startswith("error: ") and told in text, (name, text)
        # A run has happened, and published.
        assert "nothing is published yet" not in text
    (published / "models" / "new.sql").unlink()
    code, text = floe("show", "shop.off", "--product-dir", published)
    assert (
        code == 2 and "model 'off' is disabled (`enabled: false`)" in text and "shop/models/off.sql" in text
    )
    code, text = floe("show", "shop.orders", "--product-dir", published.with_name("shopp"))
    assert code == 2 and "[no-product]" in text and "Did you mean 'shop'?" in text


def test_show_of_a_table_that_nothing_writes_any_more_says_so(published: Path, floe: Command) -> None:
    orders = published / "models" / "orders.sql"
    orders.write_text("{{ config(materialized='view') }}\n" + orders.read_text())
    assert floe("compile", published)[0] == 0
    code, text = floe("show", "shop.orders", "--product-dir", published)
    assert code == 0 and "paid" in text and "note: orders is not published any more" in text


def test_show_before_the_first_run_says_to_run(shop: Path, floe: Command) -> None:
    code, text = floe("show", "shop.orders", "--product-dir", shop)
    assert code == 2 and "shop is not compiled" in text
    assert floe("compile", shop)[0] == 0
    code, text = floe("show", "shop.orders", "--product-dir", shop)
    assert code == 2 and "nothing is published yet; run `floe-dagster run`" in text


@pytest.mark.parametrize("document", ["manifest", "product", "compiled_artifacts"])
def test_schema_prints_a_json_schema(floe: Command, document: str, tmp_path: Path) -> None:
    code, text = floe("schema", document)
    assert code == 0 and json.loads(text)["$schema"].startswith("https://json-schema.org/")
    assert floe("schema", "--write", tmp_path / "schemas")[0] == 0
    assert json.loads((tmp_path / "schemas" / f"{document}.schema.json").read_text()) == json.loads(text)


@pytest.mark.slow
def test_run_says_what_the_platform_thinks_and_why_it_failed_itself(shop: Path, tmp_path: Path) -> None:
    """Dagster shows what a step prints through a `tail` that it ends with the step, be it done or not."""
    with (shop.parent / "manifest.yaml").open("a") as file:
        file.write("governance: {policy_enforcement_level: warn}\napproved_plugins: {compute: [trino]}\n")
    (shop / "models" / "daily.sql").write_text("select * from nowhere, {{ ref('orders') }}\n")
    tail = tmp_path / "bin" / "tail"
    tail.parent.mkdir()
    tail.write_text("#!/bin/sh\nexec sleep 60\n")
    tail.chmod(0o755)
    done = subprocess.run(
        [Path(sys.executable).with_name("floe-dagster"), "run", str(shop)],
        env={
            **os.environ,
            "FLOE_HOME": str(tmp_path / "home"),
            "PATH": f"{tail.parent}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert "warning: compute 'duckdb' is not approved" in done.stderr
    assert "nowhere does not exist" in done.stderr and "published shop.orders" in done.stderr
