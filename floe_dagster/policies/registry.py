"""The policies that there are. Another one is one more module, and its line in `POLICIES`."""

from __future__ import annotations

from floe_dagster.policies.agreement import Agreement
from floe_dagster.policies.naming import Naming
from floe_dagster.policies.ownership import Ownership
from floe_dagster.policies.personal_data import PersonalData
from floe_dagster.policies.plugins import Plugins
from floe_dagster.policies.policy import Policy
from floe_dagster.policies.quality_gates import Documentation, TestCoverage
from floe_dagster.policies.secrets import Secrets
from floe_dagster.policies.tiers import TierOrder
from floe_dagster.schemas.governed import Setting

POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Naming(),
        Documentation(),
        TestCoverage(),
        Ownership(),
        TierOrder(),
        PersonalData(),
        Secrets(),
        Plugins(),
        Agreement(),
    )
}
"""By name, in the order in which they look and are shown."""


def policy_settings() -> list[Setting]:
    """Return the fields of `governance` that policies go by, each once."""
    settings = {
        policy.setting.name: policy.setting for policy in POLICIES.values() if policy.setting is not None
    }
    return list(settings.values())


def policies_table() -> str:
    """Return the policies as a Markdown table for people."""
    rows = [f"| `{policy.name}` | {policy.description} | {policy.set_by} |" for policy in POLICIES.values()]
    return "\n".join(("| policy | what it asks for | set by |", "|---|---|---|", *rows))
