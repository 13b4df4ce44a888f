"""Policies over dbt's manifest: rules, findings, the report."""

from __future__ import annotations

from floe_dagster.policies.evaluate import POLICIES, Policy, evaluate_policies
from floe_dagster.policies.model import PolicyContext, PolicyReport, PolicyResult

__all__ = ["POLICIES", "Policy", "PolicyContext", "PolicyReport", "PolicyResult", "evaluate_policies"]
