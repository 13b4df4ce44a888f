"""Which rule merges each governed field: those of the documents, and those that the policies bring.

What decides a product's governance, what `floe-dagster explain` prints and what docs/manifest.md says all come from
`governance_rules`. What the rules are stands in `schemas.merging`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from floe_dagster.policies import policy_settings
from floe_dagster.schemas.manifest import Bounds
from floe_dagster.schemas.merging import (
    EVERY,
    GREATER,
    LEVEL,
    NEAREST,
    SMALLER,
    All,
    Common,
    MergeRule,
    ranked,
)

BOUNDED = tuple(Bounds.model_fields)
"""Fields of `governance` that the platform may give bounds."""

_OF_DOCUMENTS: Mapping[str, MergeRule] = {
    "policy_enforcement_level": LEVEL,
    "audit_logging": ranked("disabled", "enabled"),
    "data_retention_days": GREATER,
    "schema_evolution": ranked("allow", "additive", "refuse"),
    "stale_table_recovery_mode": ranked("repair", "strict"),
    "environment": Common(),
    "products": EVERY,
    "table_properties": EVERY,
    **{f"bounds.{field}.min": GREATER for field in BOUNDED},
    **{f"bounds.{field}.max": SMALLER for field in BOUNDED},
    "exemptions": All(),
    "default_ttl_hours": NEAREST,
    "snapshot_keep_last": NEAREST,
}


@cache
def governance_rules() -> Mapping[str, MergeRule]:
    """Return the rule of every field that `governance` of a manifest has, by its dotted name."""
    rules = dict(_OF_DOCUMENTS)
    for setting in policy_settings():
        rules |= setting.rules
    return rules


def rules_table() -> str:
    """Return `governance_rules` as a Markdown table for people; fields with the same rule share a row."""
    rows: dict[tuple[str, str], list[str]] = {}
    for field, rule in governance_rules().items():
        rows.setdefault((rule.name, rule.who_wins), []).append(f"`{field}`")
    lines = ["| field | rule | who wins |", "|---|---|---|"]
    lines += [f"| {', '.join(fields)} | {name} | {wins} |" for (name, wins), fields in rows.items()]
    return "\n".join(lines)
