"""Runs the policies and gives each finding the severity of the level in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from floe_dagster.findings import Finding, Severity
from floe_dagster.policies.model import PolicyContext, PolicyReport, PolicyResult, Project
from floe_dagster.policies.registry import POLICIES
from floe_dagster.schemas.manifest import Exemption
from floe_dagster.schemas.product_index import ColumnRules


def _exemption(finding: Finding, context: PolicyContext) -> Exemption | None:
    """Return why a finding does not count; None where it counts."""
    return next(
        (
            each
            for each in context.exemptions
            if each.policy == finding.policy and each.model in (finding.model, finding.file)
        ),
        None,
    )


def evaluate_policies(manifest: Mapping[str, Any], context: PolicyContext) -> PolicyReport:
    """Run every policy on dbt's manifest.

    Args:
        manifest: As dbt writes it (schema v12).
        context: What is in force.
    """
    project = Project.of(manifest, context)
    results = {}
    for name, policy in POLICIES.items():
        setting = context.settings.get(policy.setting.name) if policy.setting is not None else None
        level = policy.level(context.level, setting)
        if level == "off":
            results[name] = PolicyResult(name, "off", level)
            continue
        severity: Severity = "error" if level == "strict" else "warning"
        findings = tuple(
            replace(finding, severity=severity, kind="policy", policy=name)
            for finding in policy.check(project.seen_by(policy.looks_at), setting)
        )
        exempted = tuple(
            (found, why) for found in findings if (why := _exemption(found, context)) is not None
        )
        findings = tuple(found for found in findings if all(found is not each for each, _why in exempted))
        status = "passed" if not findings else "failed" if severity == "error" else "warned"
        results[name] = PolicyResult(name, status, level, findings, exempted)
    return PolicyReport(context.level, results, len(project.models))


def column_rules(context: PolicyContext) -> ColumnRules:
    """Return what runs ask of built columns: what the policies on documentation and personal data ask of listed ones.

    Args:
        context: What is in force.
    """
    gates = context.settings.get("quality_gates")
    asks_words = gates is not None and gates.require_descriptions
    asks_classes = context.settings.get("pii_encryption") == "required"
    personal = context.settings.get("personal_data")
    return ColumnRules(
        descriptions=POLICIES["documentation"].level(context.level, gates) if asks_words else "off",
        personal_data=context.level if asks_classes else "off",
        types=context.level,
        personal_names=tuple(personal.names or ()) if personal is not None else (),
        exempt=tuple(
            (each.model, each.until.isoformat())
            for each in context.exemptions
            if each.policy == "built_columns"
        ),
    )
