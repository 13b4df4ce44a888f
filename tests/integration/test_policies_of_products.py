"""Policies on products as teams write them: what compiles, what a run has built, and who is exempt until when."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from floe_dagster.compilation import exemptions
from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.compilation.result import CompileResult
from floe_dagster.findings import Finding
from floe_dagster.home import FloeHome
from tests.conftest import MANIFEST
from tests.integration.test_gates import Product, write

STRICT = """\
governance:
  policy_enforcement_level: strict
  pii_encryption: required
  quality_gates: {require_descriptions: true}
"""
SCHEMA = """\
models:
  - name: orders
    description: Orders of the shop.
    columns: [{name: id, description: Key., data_type: varchar}]
  - {name: daily, description: Orders by day.}
  - {name: between, description: What stands between., columns: [{name: id, description: Key.}]}
  - name: plain
    description: What is as it is described.
    columns: [{name: id, description: Key., data_type: integer}, {name: has_phone, description: Whether we may call.}]
  - {name: old, description: Nobody knows its columns.}
"""
MODELS = {
    "models/schema.yml": SCHEMA,
    "models/orders.sql": "select 1 as id, 'a@example.com' as email, true as has_phone",
    # Only the run sees which relation this is.
    "models/daily.sql": "select count(*) as n from {{ 'main.' ~ 'plain' }} where 1 in (select id from {{ ref('between') }})",
    "models/between.sql": "{{ config(materialized='view') }} select id from {{ ref('plain') }}",
    "models/plain.sql": "select 1 as id, true as has_phone",
    "models/old.sql": "select 1 as undescribed",
}
EXEMPT = "  exemptions:\n    - {{policy: built_columns, model: old, reason: it goes, owner: platform, until: {}}}\n"


def govern(shop: Path, governance: str) -> None:
    (shop.parent / "manifest.yaml").write_text(MANIFEST + governance)


def evaluation(instance: dg.DagsterInstance) -> Any:
    key = dg.AssetCheckKey(dg.AssetKey(["shop", "dbt_manifest"]), "built_columns")
    (record,) = instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).values()
    assert record.event is not None and record.event.dagster_event is not None
    return record.event.dagster_event.event_specific_data


@pytest.mark.parametrize("level", ["warn", "strict"])
def test_built_columns_are_those_that_are_described(shop: Path, home: FloeHome, level: str) -> None:
    write(shop, MODELS)
    govern(shop, STRICT.replace("strict", level) + EXEMPT.format("2999-01-01"))
    product = Product(shop, home)
    with dg.DagsterInstance.ephemeral() as instance:
        withheld = product.run(instance=instance)
        check = evaluation(instance)
    assert "read with ref()" in withheld.pop("daily") and product.rows("daily") == []
    assert product.rows("plain") == [1] and product.rows("old") == [1]
    findings = check.metadata["findings"].value
    for said in (
        "'id' was built as INTEGER",
        "'email' was built and is not described",
        "'email' was built, is named like",
    ):
        assert said in findings
    assert "'has_phone' was built and is not described" in findings and "plain" not in findings.replace(
        "explain", ""
    )
    assert not check.passed and "undescribed" not in findings
    if level == "warn":
        assert withheld == {} and product.rows("orders") == [1]
        assert check.severity == dg.AssetCheckSeverity.WARN
    else:
        assert "'email' was built" in withheld["orders"] and product.rows("orders") == []
        assert check.severity == dg.AssetCheckSeverity.ERROR


BYPASSES = {
    "dbt_project.yml": "name: shop\nversion: 1.0.0\nprofile: shop\nmodels: {+materialized: table}\n"
    "on-run-start: [select 1]\n",
    "packages.yml": "packages:\n  - local: lib\n",
    "lib/dbt_project.yml": "name: lib\nversion: 1.0.0\nconfig-version: 2\non-run-end: [select 2]\n",
    "lib/models/Evil.sql": "select 'AKIAABCDEFGHIJKLMNOP' as email",
    "lib/macros/u.sql": "{% macro should_store_failures() %}{{ return(false) }}{% endmacro %}",
    "macros/t.sql": "-- one\n{% test unique(model, column_name) %} select 1 where false {% endtest %}",
    "models/orders.sql": "{{ config(post_hook='select 3') }}\nselect 1 as id, 'paid' as status",
    "models/daily.sql": "select 1 as id\nfrom main.orders",
    "models/mart_py.py": "def model(dbt, session):\n    return session.sql('select id from main.orders')\n",
    "models/schema.yml": "models:\n  - {name: orders, description: x, columns: [{name: id, data_tests: [unique]}]}\n",
    "tests/nothing.sql": "select 1 where false -- {{ ref('orders') }}",
    "seeds/keys.csv": "id,k\n1,AKIAABCDEFGHIJKLMNOP\n",
}
CODES = {
    ("hook-not-allowed", "dbt_project.yml"),
    ("hook-not-allowed", "lib/dbt_project.yml"),
    ("hook-not-allowed", "models/orders.sql"),
    ("package-not-allowed", "packages.yml"),
    ("python-model-not-allowed", "models/mart_py.py"),
    ("built-in-replaced", "macros/t.sql"),
    ("built-in-replaced", "lib/macros/u.sql"),
    ("hard-coded-relation", "models/daily.sql"),
    ("hard-coded-relation", "models/mart_py.py"),
    ("weak-test", "models/schema.yml"),
    ("weak-test", "tests/nothing.sql"),
    ("secret-in-file", "lib/models/Evil.sql"),
    ("secret-in-file", "seeds/keys.csv"),
    ("model-description", "models/schema.yml"),
    ("model-description", "lib/models/Evil.sql"),
}


def errors(result: CompileResult) -> set[tuple[str, str | None]]:
    return {(f.code, (f.file or "").removeprefix("shop/")) for f in result.findings if f.severity == "error"}


def of_code(result: CompileResult, code: str) -> list[Finding]:
    return [finding for finding in result.findings if finding.code == code]


def test_every_way_around_is_found_with_its_place(shop: Path, home: FloeHome) -> None:
    write(shop, BYPASSES)
    govern(shop, STRICT)
    result = compile_product(shop, home=home)
    assert (
        errors(result)
        - {("model-description", "models/daily.sql"), ("model-description", "models/mart_py.py")}
        >= CODES
    )
    lines = {(f.code, (f.file or "").removeprefix("shop/")): f.line for f in result.findings}
    assert lines["hook-not-allowed", "dbt_project.yml"] == 5
    assert lines["hard-coded-relation", "models/daily.sql"] == 2
    assert lines["built-in-replaced", "macros/t.sql"] == 2
    assert lines["package-not-allowed", "packages.yml"] == 2
    assert all(finding.fix for finding in result.findings if finding.severity == "error")


def test_exemptions_end_and_name_something(
    shop: Path, home: FloeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = datetime.date(2030, 6, 1)
    monkeypatch.setattr(exemptions, "today", lambda: today)
    write(shop, {"models/daily.sql": "select 1 as n"})
    listed = [
        {"policy": "documentation", "model": "orders", "until": "2030-06-01"},
        {"policy": "documentation", "model": "daily", "until": "2030-05-31"},
        {"policy": "documentary", "model": "orders", "until": "2031-01-01"},
        {"policy": "naming", "model": "order", "until": "2031-01-01"},
        {"policy": "naming", "model": "elsewhere", "product": "other-shop", "until": "2001-01-01"},
    ]
    for each in listed:
        each |= {"reason": "it is old", "owner": "platform@example.com"}
    govern(
        shop,
        STRICT + yaml.safe_dump({"exemptions": listed}, indent=2).replace("\n", "\n  ").join(["  ", "\n"]),
    )
    result = compile_product(shop, home=home)
    (over,) = of_code(result, "exemption-over")
    assert over.severity == "error" and "'daily'" in over.message and over.found == "2030-05-31"
    assert over.line is not None and "platform@example.com" in str(over.fix)
    assert [f.model for f in of_code(result, "model-description")] == ["daily"]
    nothing = of_code(result, "exemption-of-nothing")
    assert {f.found for f in nothing} == {"documentary", "order"}
    assert {f.severity for f in nothing} == {"warning"}
    told = result.summary["policies"]["results"]["documentation"]["exempted"]
    assert [each["exemption"]["model"] for each in told] == ["orders"]

    today = datetime.date(2030, 5, 31)
    assert compile_product(shop, home=home).bundle is not None
    # Nothing has changed but the day.
    today = datetime.date(2030, 6, 1)
    assert of_code(compile_product(shop, home=home), "exemption-over")
