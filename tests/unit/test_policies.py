"""Policies over small dbt manifests."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from floe_dagster.findings import Finding
from floe_dagster.policies import POLICIES, PolicyContext, PolicyReport, evaluate_policies, policy_settings
from floe_dagster.policies.model import SourceText
from floe_dagster.policies.naming import NamingRules
from floe_dagster.policies.quality_gates import QualityGates
from floe_dagster.policies.sarif import to_sarif


def model(name: str, *, reads: tuple[str, ...] = (), folder: str = "models", **fields: Any) -> dict[str, Any]:
    """A model as dbt's manifest describes it."""
    columns = fields.pop("columns", {})
    return {
        "unique_id": f"model.shop.{name}",
        "resource_type": "model",
        "package_name": "shop",
        "name": name,
        "fqn": ["shop", folder, name],
        "depends_on": {"nodes": [f"model.shop.{up}" for up in reads]},
        "original_file_path": f"models/{folder}/{name}.sql",
        "patch_path": "shop://models/schema.yml",
        "description": "",
        "columns": {c: {"name": c, "description": "", **values} for c, values in columns.items()},
        "config": {},
        "raw_code": "select 1",
        **fields,
    }


def test_of(name: str) -> dict[str, Any]:
    return {
        "unique_id": f"test.shop.{name}",
        "resource_type": "test",
        "name": f"unique_{name}",
        "attached_node": f"model.shop.{name}",
        "depends_on": {"nodes": [f"model.shop.{name}"]},
    }


test_of.__test__ = False  # type: ignore[attr-defined]


def evaluate(
    *nodes: Mapping[str, Any],
    macros: Sequence[Mapping[str, Any]] = (),
    disabled: Sequence[Mapping[str, Any]] = (),
    engine: str = "duckdb",
    **context: Any,
) -> PolicyReport:
    manifest = {
        "metadata": {"project_name": "shop", "adapter_type": engine},
        "nodes": {node["unique_id"]: node for node in nodes},
        "macros": {macro["unique_id"]: macro for macro in macros},
        "disabled": {node["unique_id"]: [node] for node in disabled},
    }
    settings = {setting.name: context.pop(setting.name, None) for setting in policy_settings()}
    context = {"level": "warn", "owner": "shop@example.com", "path_prefix": "products/shop", **context}
    return evaluate_policies(manifest, PolicyContext(settings=settings, **context))


def file(text: str, name: str = "models/models/a.sql", *, is_document: bool = False) -> SourceText:
    """A file of the product with a text."""
    return SourceText(name, f"products/shop/{name}", text.encode, is_document)


def found(report: PolicyReport, policy: str) -> list[Finding]:
    return list(report.results[policy].findings)


@pytest.mark.parametrize(
    ("rules", "good", "bad"),
    [
        ({"pattern": "kimball"}, "stg_orders", "orders"),
        ({"pattern": "kimball"}, "fct_orders", "fct_Orders"),
        ({"pattern": "medallion"}, "gold_orders", "golden_orders"),
        ({"pattern": "medallion"}, "bronze_a1", "bronze_"),
        ({"pattern": "custom", "custom_patterns": ["x_.*", "y"]}, "x_1", "ax_1"),
        ({"custom_patterns": ["[a-z]+"]}, "orders", "orders_2"),
    ],
)
def test_naming(rules: dict[str, Any], good: str, bad: str) -> None:
    report = evaluate(model(good), model(bad), naming=NamingRules(**rules))
    (finding,) = found(report, "naming")
    assert (finding.model, finding.policy, finding.severity) == (bad, "naming", "warning")
    assert finding.fix


def test_custom_without_patterns_allows_no_name_and_says_why() -> None:
    (finding,) = found(evaluate(model("a"), naming=NamingRules(pattern="custom")), "naming")
    assert finding.fix and "custom_patterns" in finding.fix


def test_no_naming_rules_ask_for_nothing() -> None:
    assert evaluate(model("anything"), naming=NamingRules()).results["naming"].status == "passed"


def test_descriptions_of_models_and_of_listed_columns() -> None:
    yaml = "models:\n  - name: a\n    columns:\n      - name: id\n      - {name: at}\n"
    report = evaluate(
        model("a", description="Text.", columns={"id": {}, "at": {"description": " "}}),
        model("b", description="Text.", columns={"id": {"description": "Key."}}),
        model("c"),
        quality_gates=QualityGates(require_descriptions=True),
        read_text=lambda path: yaml if path == "models/schema.yml" else None,
    )
    places = {(f.code, f.model, f.file, f.line) for f in found(report, "documentation")}
    assert places == {
        ("column-description", "a", "products/shop/models/schema.yml", 4),
        ("column-description", "a", "products/shop/models/schema.yml", 5),
        ("model-description", "c", "products/shop/models/models/c.sql", 1),
    }


def test_coverage_counts_models_with_a_test() -> None:
    nodes = [model("a"), model("b"), model("c"), model("d"), test_of("a"), test_of("b"), test_of("c")]
    assert (
        found(
            evaluate(*nodes, quality_gates=QualityGates(minimum_test_coverage=75)),
            "test_coverage",
        )
        == []
    )
    (finding,) = found(
        evaluate(*nodes, quality_gates=QualityGates(minimum_test_coverage=76)), "test_coverage"
    )
    assert finding.model == "d" and "75 %" in finding.message


def test_every_model_has_an_owner() -> None:
    owned = model("a", config={"meta": {"owner": "team:a"}})
    report = evaluate(owned, model("b", group="finance"), model("c"), owner=None)
    assert [f.model for f in found(report, "ownership")] == ["c"]


def test_tiers_are_read_in_order() -> None:
    nodes = [
        model("raw", folder="staging"),
        model("clean", folder="intermediate", reads=("raw",)),
        model("mart", folder="marts", reads=("clean",)),
        model("jump", folder="marts", reads=("raw",)),
        model("back", folder="staging", reads=("mart",)),
        model("free", folder="elsewhere", reads=("mart",)),
    ]
    found_in = {f.model: f.message for f in found(evaluate(*nodes), "tier_order")}
    assert found_in.keys() == {"jump", "back"}
    assert "skips silver" in found_in["jump"] and "goes upward" in found_in["back"]


def test_a_transforms_tier_is_stronger_than_the_folder() -> None:
    nodes = [model("raw", folder="marts"), model("mart", folder="marts", reads=("raw",))]
    assert found(evaluate(*nodes), "tier_order") == []
    assert [f.model for f in found(evaluate(*nodes, tiers={"raw": "bronze"}), "tier_order")] == ["mart"]


@pytest.mark.parametrize(
    ("column", "values", "flagged"),
    [
        ("email", {}, True),
        ("customer_email", {}, True),
        ("emailAddress", {}, True),
        ("EMAIL", {}, True),
        ("id", {"tags": ["pii"]}, True),
        ("id", {"config": {"tags": ["personal_data"]}}, True),
        ("email", {"meta": {"classification": "confidential"}}, False),
        ("email", {"config": {"meta": {"classification": "confidential"}}}, False),
        ("email_count", {}, False),
        ("has_phone", {}, False),
        ("emailed_at", {}, False),
        ("amount", {}, False),
    ],
)
def test_personal_data_is_classified(column: str, values: dict[str, Any], flagged: bool) -> None:
    node = model("a", columns={column: values})
    assert bool(found(evaluate(node, pii_encryption="required"), "personal_data")) is flagged
    assert not found(evaluate(node, pii_encryption="optional"), "personal_data")


@pytest.mark.parametrize(
    "sql",
    [
        "select 1\nfrom x where key = 'AKIAIOSFODNN7EXAMPLE'",
        "select 1\n, 'postgres://user:hunter22@host/db'",
        "-- comment\nattach 'x' (password = 'hunter2hunter2')",
    ],
)
def test_a_secret_in_sql_is_found_at_its_line_and_never_repeated(sql: str) -> None:
    (finding,) = found(evaluate(files=[file(sql)]), "secrets")
    assert (finding.file, finding.line) == ("products/shop/models/models/a.sql", 2)
    assert not any(secret in finding.to_text() for secret in ("AKIA", "hunter2"))


@pytest.mark.parametrize(
    "sql",
    [
        "select password_hash from users",
        "attach 'x' (password = '{{ env_var(\"DBT_ENV_SECRET_X\") }}')",
        "select 'https://example.com/a@b'",
        "select password = 'short' from x where note = ''",
    ],
)
def test_what_only_looks_like_a_secret_is_left_alone(sql: str) -> None:
    assert found(evaluate(files=[file(sql)]), "secrets") == []


def test_only_approved_plugins() -> None:
    context = {
        "approved_plugins": {"compute": ["trino"], "catalog": ["sql"]},
        "plugins_used": {"compute": "duckdb", "catalog": "sql", "storage": "local"},
        "plugin_places": {"compute": ("manifests/a.yaml", 7)},
    }
    (finding,) = found(evaluate(model("a"), **context), "plugins")
    assert (finding.file, finding.line, finding.found, finding.allowed) == (
        "manifests/a.yaml",
        7,
        "duckdb",
        "trino",
    )


def test_engines_that_models_name_are_approved_like_the_default_one() -> None:
    context = {
        "approved_plugins": {"compute": ["duckdb"]},
        "plugins_used": {"compute": "duckdb"},
        "further_engines": {"additional_compute[0]": "trino"},
        "plugin_places": {"additional_compute[0]": ("manifests/a.yaml", 9)},
    }
    (finding,) = found(evaluate(model("a"), **context), "plugins")
    assert (finding.file, finding.line, finding.found) == ("manifests/a.yaml", 9, "trino")
    assert finding.field == "plugins.additional_compute[0].type"


@pytest.mark.parametrize(
    ("level", "status", "severity"), [("strict", "failed", "error"), ("warn", "warned", "warning")]
)
def test_the_level_sets_the_severity(level: str, status: str, severity: str) -> None:
    result = evaluate(model("a"), level=level, naming=NamingRules(pattern="kimball")).results["naming"]
    assert result.status == status and [f.severity for f in result.findings] == [severity]


def test_off_finds_nothing_and_says_so() -> None:
    report = evaluate(model("a"), level="off", naming=NamingRules(pattern="kimball"))
    assert {result.status for name, result in report.results.items() if name != "secrets"} == {"off"}
    assert report.findings == [] and report.policy_types_checked == ["secrets"]


def test_a_literal_secret_is_a_warning_under_off() -> None:
    secret = Finding("literal-secret", "warning", "a secret", file="manifest.yaml", line=7)
    report = evaluate(model("a"), level="off", document_findings=[secret])
    assert report.results["secrets"].status == "warned"
    assert [(each.code, each.severity, each.file, each.line) for each in report.findings] == [
        ("literal-secret", "warning", "manifest.yaml", 7),
    ]


@pytest.mark.parametrize(
    ("level", "own", "expected"),
    [("off", "warn", "warn"), ("warn", "strict", "strict"), ("strict", "off", "strict")],
)
def test_naming_may_only_strengthen_the_level(level: str, own: str, expected: str) -> None:
    naming = NamingRules(pattern="kimball", enforcement=own)
    assert evaluate(model("a"), level=level, naming=naming).results["naming"].level == expected


def test_block_on_failure_blocks_the_gates_alone() -> None:
    gates = QualityGates(require_descriptions=True, minimum_test_coverage=100, block_on_failure=True)
    results = evaluate(
        model("a"), level="warn", quality_gates=gates, naming=NamingRules(pattern="kimball")
    ).results
    assert {n for n, r in results.items() if r.status == "failed"} == {"documentation", "test_coverage"}
    assert results["naming"].status == "warned"


def test_models_of_packages_are_built_so_they_are_judged() -> None:
    foreign = model("foreign", package_name="of_others", patch_path=None)
    report = evaluate(
        foreign, naming=NamingRules(pattern="kimball"), package_folders={"of_others": "lib/others"}
    )
    (finding,) = found(report, "naming")
    assert finding.file == "products/shop/lib/others/models/models/foreign.sql"
    assert report.models_validated == 1
    assert [f.code for f in found(report, "code")] == ["package-not-allowed"]


def test_five_thousand_models_take_no_time_worth_a_word() -> None:
    yaml = "models:\n" + "".join(f"  - name: m{n}\n    columns:\n      - name: email\n" for n in range(5_000))
    nodes = [model(f"m{n}", columns={"email": {}}) for n in range(5_000)]
    begun = time.process_time()
    report = evaluate(*nodes, pii_encryption="required", read_text=lambda _path: yaml)
    # Quadratic work over the file would take minutes; the bound is generous on purpose.
    assert time.process_time() - begun < 20
    assert found(report, "personal_data")[-1].line is not None
    assert len(found(report, "personal_data")) == 5_000


def test_sarif() -> None:
    report = evaluate(model("a"), level="strict", naming=NamingRules(pattern="kimball"))
    sarif = to_sarif(report.findings)
    (run,) = sarif["runs"]
    (result,) = run["results"]
    assert sarif["version"] == "2.1.0"
    assert result["level"] == "error" and result["ruleId"] == "model-name"
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "model-name"
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "products/shop/models/models/a.sql"
    assert place["region"]["startLine"] == 1


def test_every_policy_is_described() -> None:
    assert [policy.name for policy in POLICIES.values()] == list(POLICIES) and len(POLICIES) == 13
    assert all(policy.title and policy.description.endswith(".") for policy in POLICIES.values())
