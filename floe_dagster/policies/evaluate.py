"""Runs the policies and gives each finding the severity of the level in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from floe_dagster.findings import Severity
from floe_dagster.policies.model import PolicyContext, PolicyReport, PolicyResult, Project
from floe_dagster.policies.registry import POLICIES


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
            for finding in policy.check(project, setting)
        )
        status = "passed" if not findings else "failed" if severity == "error" else "warned"
        results[name] = PolicyResult(name, status, level, findings)
    return PolicyReport(context.level, results, len(project.models))
