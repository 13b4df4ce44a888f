"""Tiers: a model reads its own or the one right below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from floe_dagster.findings import Finding
from floe_dagster.policies.asset_names import named_by
from floe_dagster.policies.model import Project
from floe_dagster.policies.policy import Policy

TIERS = ("bronze", "silver", "gold")
TIER_OF_FOLDER: Mapping[str, str] = {
    "bronze": "bronze",
    "staging": "bronze",
    "raw": "bronze",
    "silver": "silver",
    "intermediate": "silver",
    "gold": "gold",
    "marts": "gold",
    "mart": "gold",
}


class TierOrder(Policy):
    """A model reads its own tier or the one right below."""

    name = "tier_order"
    title = "Tier order"
    description = (
        "A model reads its own tier or the one right below; seeds may be read by all. The tier is the "
        "transform's, else that of the folder (staging is bronze, intermediate silver, marts gold)."
    )
    set_by = "`transforms[].tier`, else the folder"

    def check(self, project: Project, _setting: None) -> Iterator[Finding]:
        """A model reads its own tier or the one right below."""
        for node in project.models:
            tier = tier_of(node, project.context.tiers)
            if tier is None:
                continue
            for upstream_id in node["depends_on"]["nodes"]:
                upstream = project.by_id.get(upstream_id)
                below = tier_of(upstream, project.context.tiers) if upstream else None
                if upstream is None or below is None or upstream["resource_type"] == "seed":
                    continue
                step = TIERS.index(tier) - TIERS.index(below)
                if step not in (0, 1):
                    how = "skips silver" if step > 1 else "goes upward"
                    yield project.finding(
                        node,
                        f"{tier} model {node['name']!r} reads {below} model {upstream['name']!r}, which {how}",
                        f"Read a {TIERS[max(TIERS.index(tier) - 1, 0)]} model, or correct the tier of one of the two.",
                        "tier-order",
                    )


def tier_of(node: Mapping[str, Any] | None, tiers: Mapping[str, str]) -> str | None:
    """Return a model's tier: its transform's, else that of its folder; None where neither says one.

    Args:
        node: Of dbt's manifest.
        tiers: By the name of a model or of one version of it, as the product spec says.
    """
    if node is None:
        return None
    named = named_by(node, tiers)
    if named is not None:
        return tiers[named]
    # Of a version the name of the model and the version stand at the end.
    for folder in reversed(node["fqn"][1 : -1 if node.get("version") is None else -2]):
        if folder in TIER_OF_FOLDER:
            return TIER_OF_FOLDER[folder]
    return None
