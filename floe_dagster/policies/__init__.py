"""Policies over dbt's manifest: rules, findings, the report."""

from __future__ import annotations

from floe_dagster.policies.evaluate import column_rules, evaluate_policies
from floe_dagster.policies.model import PolicyContext, PolicyReport, PolicyResult, Project
from floe_dagster.policies.policy import Policy
from floe_dagster.policies.registry import POLICIES, looks_at_table, policies_table, policy_settings

__all__ = [
    "POLICIES",
    "Policy",
    "PolicyContext",
    "PolicyReport",
    "PolicyResult",
    "Project",
    "column_rules",
    "evaluate_policies",
    "looks_at_table",
    "policies_table",
    "policy_settings",
]
