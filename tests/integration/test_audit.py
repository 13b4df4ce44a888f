"""What is done to a product is in the audit log, where the platform says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg

from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.home import FloeHome
from tests.conftest import MANIFEST

RULES = "governance: {audit_logging: enabled, schema_evolution: %s}\n"


def test_compilations_runs_maintenance_and_rollbacks_are_recorded(
    shop: Path, home: FloeHome, instance: dg.DagsterInstance
) -> None:
    manifest, read = shop.parent / "manifest.yaml", [0]

    def new() -> list[dict[str, Any]]:
        text = home.audit_log.read_text() if home.audit_log.exists() else ""
        lines = [json.loads(line) for line in text.splitlines()]
        found, read[0] = lines[read[0] :], len(lines)
        return found

    def said(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
        return [(each["action"], each["outcome"]) for each in records]

    compile_product(shop, home=home)
    assert new() == []

    manifest.write_text(MANIFEST + RULES % "allow")
    first = compile_product(shop, home=home)
    compiled, rules = new()
    assert (compiled["action"], compiled["outcome"], compiled["digest"]) == (
        "compile",
        "succeeded",
        first.digest,
    )
    assert compiled["user"] and compiled["details"]["manifest"]["file"] == "manifest.yaml"
    assert [(each["field"], each["before"], each["after"]) for each in rules["details"]["changes"]] == [
        ("audit_logging", None, "enabled"),
        ("schema_evolution", None, "allow"),
    ]
    assert compile_product(shop, home=home).unchanged and new() == []

    def run(name: str, config: dict[str, Any] | None = None, **options: Any) -> Any:
        bundle = compile_product(shop, home=home).bundle
        assert bundle is not None
        job = build_product_definitions(bundle, product_dir=shop, home=home).resolve_job_def(name)
        ops = {"ops": {"shop_maintain": {"config": config}}} if config is not None else None
        return job.execute_in_process(
            instance=instance, raise_on_error=False, run_config=ops, tags={"dagster/user": "ann"}, **options
        )

    outcome = run("shop_run")
    records = new()
    assert said(records) == [
        ("run", "began"),
        ("publish", "succeeded"),
        ("publish", "succeeded"),
        ("run", "succeeded"),
    ]
    assert {each["run_id"] for each in records} == {outcome.run_id}
    assert all(each["launched_by"] == {"user": "ann"} and each["digest"] == first.digest for each in records)
    assert {each["table"] for each in records[1:3]} == {"shop.orders", "shop.daily"}
    assert all(int(each["details"]["snapshot_id"]) for each in records[1:3])
    assert records[3]["details"]["published"] == [each["table"] for each in records[1:3]]

    # A run of one asset that fails; what the engine says of it is in no record.
    orders = shop / "models" / "orders.sql"
    good = orders.read_text()
    orders.write_text("select error('hunter22') as id\n")
    assert not run("shop_run", asset_selection=[dg.AssetKey(["shop", "orders"])]).success
    records = new()
    assert said(records) == [("compile", "succeeded"), ("run", "began"), ("run", "failed")]
    assert records[1]["details"] == {"assets": ["orders"]}
    assert records[2]["details"]["published"] == [] and records[2]["details"]["error"]
    assert "hunter22" not in home.audit_log.read_text()

    orders.write_text(good)
    (record,) = [each for each in (compile_product(shop, home=home), *new()) if isinstance(each, dict)]
    assert (record["action"], record["digest"]) == ("rollback", first.digest)

    # A compilation that is blocked, and one that changes a rule.
    manifest.write_text(MANIFEST + RULES % "nothing")
    assert compile_product(shop, home=home).blocked
    (record,) = new()
    assert said([record]) == [("compile", "blocked")] and record["details"]["findings"]
    manifest.write_text(MANIFEST + RULES % "refuse")
    compile_product(shop, home=home)
    (change,) = new()[1]["details"]["changes"]
    assert (change["before"], change["after"]) == ("allow", "refuse")
    assert (change["decided_by"], change["place"]) == ("manifest test-platform", "manifest.yaml:4")

    # Maintenance drops what no model publishes any more; who only looks leaves no record.
    (shop / "models" / "daily.sql").unlink()
    compile_product(shop, home=home)
    new()
    assert run("shop_maintenance", {"dry_run": True}).success and new() == []
    assert run("shop_maintenance", {"drop_retired": ["daily"]}).success
    records = new()
    assert said(records) == [
        ("maintain", "began"),
        ("maintain", "succeeded"),
        ("drop", "succeeded"),
        ("maintain", "succeeded"),
    ]
    assert [each.get("table") for each in records] == [None, "shop.orders", "shop.daily", None]
    assert records[2]["details"]["files"] > 0 and records[0]["details"] == {"drop_retired": ["daily"]}

    # That nobody records any more is the last record.
    manifest.write_text(MANIFEST)
    compile_product(shop, home=home)
    assert said(new()) == [("compile", "succeeded"), ("rules", "succeeded")]
    orders.write_text("select 2 as id\n")
    compile_product(shop, home=home)
    assert new() == []
