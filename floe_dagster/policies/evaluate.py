"""Runs the policies and gives each finding the severity of the level in force."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from floe_dagster.findings import Finding, Severity
from floe_dagster.policies import rules
from floe_dagster.policies.model import LEVELS, PolicyContext, PolicyReport, PolicyResult, Project


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy; it is an asset check of the dbt manifest, too.

    Args:
        name: In snake_case, also the check's name.
        title: For people.
        description: What it asks for.
        rule: Yields findings.
    """

    name: str
    title: str
    description: str
    rule: Callable[[Project], Iterator[Finding]]


POLICIES: tuple[Policy, ...] = (
    Policy(
        "naming",
        "Naming",
        "Models match the naming rules: medallion (`bronze_`, `silver_`, `gold_`), kimball (`stg_`, `int_`, "
        "`dim_`, `fct_`, `fact_`, `bridge_`, `agg_`, `mart_`, `snap_`) or one of the custom patterns.",
        rules.naming,
    ),
    Policy(
        "documentation",
        "Documentation",
        "With `require_descriptions`, every model and every listed column has a description.",
        rules.documentation,
    ),
    Policy(
        "test_coverage",
        "Test coverage",
        "At least `minimum_test_coverage` percent of the models have one data test or more.",
        rules.test_coverage,
    ),
    Policy("ownership", "Ownership", "Every model has an owner, or the product has.", rules.ownership),
    Policy(
        "tier_order",
        "Tier order",
        "A model reads its own tier or the one right below; seeds may be read by all. The tier is the "
        "transform's, else that of the folder (staging is bronze, intermediate silver, marts gold).",
        rules.tier_order,
    ),
    Policy(
        "personal_data",
        "Personal data",
        "With `pii_encryption: required`, columns tagged `pii` or named like personal data carry "
        "`meta.classification`.",
        rules.personal_data,
    ),
    Policy("secrets", "Secrets", "No document, SQL or meta holds a secret itself.", rules.secrets),
    Policy("plugins", "Plugins", "Only types in `approved_plugins` are used.", rules.plugins),
    Policy("agreement", "Agreement", "Every model is named by a transform.", rules.agreement),
)


def evaluate_policies(manifest: Mapping[str, Any], context: PolicyContext) -> PolicyReport:
    """Run every policy on dbt's manifest.

    Args:
        manifest: As dbt writes it (schema v12).
        context: What is in force.
    """
    project = Project.of(manifest, context)
    results = {}
    for policy in POLICIES:
        level = _level_of(policy.name, context)
        if level == "off":
            results[policy.name] = PolicyResult(policy.name, "off", level)
            continue
        severity: Severity = "error" if level == "strict" else "warning"
        findings = tuple(
            replace(finding, severity=severity, kind="policy", policy=policy.name)
            for finding in policy.rule(project)
        )
        status = "passed" if not findings else "failed" if severity == "error" else "warned"
        results[policy.name] = PolicyResult(policy.name, status, level, findings)
    return PolicyReport(context.level, results, len(project.models))


def _level_of(name: str, context: PolicyContext) -> str:
    level = context.level
    if name == "naming" and context.naming and context.naming.enforcement:
        level = max(level, context.naming.enforcement, key=LEVELS.index)
    gated = name in ("documentation", "test_coverage")
    if gated and context.quality_gates and context.quality_gates.block_on_failure:
        level = "strict"
    return level
