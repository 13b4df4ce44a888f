"""The policies that there are. Another one is one more module, and its line in `POLICIES`."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import TypeAdapter

from floe_dagster.policies.agreement import Agreement
from floe_dagster.policies.built_columns import BuiltColumns
from floe_dagster.policies.code import Code
from floe_dagster.policies.model import RESOURCE_TYPES, ResourceType
from floe_dagster.policies.naming import Naming
from floe_dagster.policies.ownership import Ownership
from floe_dagster.policies.personal_data import PersonalData
from floe_dagster.policies.plugins import Plugins
from floe_dagster.policies.policy import Policy
from floe_dagster.policies.quality_gates import Documentation, TestCoverage
from floe_dagster.policies.references import References
from floe_dagster.policies.secrets import Secrets
from floe_dagster.policies.tiers import TierOrder
from floe_dagster.policies.weak_tests import WeakTests
from floe_dagster.schemas.governed import Setting
from floe_dagster.schemas.kinds import POLICIES_GROUP, Kinds


def _setting_problem(policy: Policy, others: Mapping[str, Policy]) -> str | None:
    """Return why the setting of a policy cannot stand in `governance`; None where it can."""
    setting = policy.setting
    if setting is None:
        return None
    from floe_dagster.schemas.manifest import ManifestGovernance

    taken = {other.setting.name for other in others.values() if other.setting is not None}
    if setting.name in taken | set(ManifestGovernance.model_fields):
        return f"governance.{setting.name}, which it goes by, is a field of its own already"
    TypeAdapter(setting.type)
    return None


POLICIES: Kinds[Policy] = Kinds(
    POLICIES_GROUP,
    # What an abstract class is to mypy, it is not to `isinstance`.
    Policy,  # type: ignore[type-abstract]
    (
        Naming(),
        Documentation(),
        TestCoverage(),
        WeakTests(),
        Ownership(),
        TierOrder(),
        References(),
        PersonalData(),
        Secrets(),
        Code(),
        BuiltColumns(),
        Plugins(),
        Agreement(),
    ),
    _setting_problem,
)
"""By name, in the order in which they look and are shown; further ones of installed distributions come last."""


def policy_settings() -> list[Setting]:
    """Return the fields of `governance` that policies go by, each once."""
    settings = {
        setting.name: setting
        for policy in POLICIES.values()
        for setting in (policy.setting, *policy.further_settings)
        if setting is not None
    }
    return list(settings.values())


def policies_table() -> str:
    """Return the policies as a Markdown table for people."""
    rows = [f"| `{policy.name}` | {policy.description} | {policy.set_by} |" for policy in POLICIES.values()]
    return "\n".join(("| policy | what it asks for | set by |", "|---|---|---|", *rows))


_SHOWN_TYPES: Mapping[ResourceType, str] = {
    "model": "models, in Python too",
    "snapshot": "snapshots",
    "seed": "published seeds",
    "source": "sources",
    "macro": "macros",
    "hook": "hooks",
    "test": "tests",
    "package": "of packages, too",
    "file": "every other file",
    "document": "`floe.yaml`, manifests",
    "column": "columns that were built",
}


def looks_at_table() -> str:
    """Return which policy looks at which resources, as a Markdown table for people."""
    head = "| looks at | " + " | ".join(_SHOWN_TYPES[each] for each in RESOURCE_TYPES) + " |"
    rows = [
        f"| `{policy.name}` | "
        + " | ".join("yes" if each in policy.looks_at else "" for each in RESOURCE_TYPES)
        + " |"
        for policy in POLICIES.values()
    ]
    return "\n".join((head, "|---|" + ":-:|" * len(RESOURCE_TYPES), *rows))
