"""Ownership: somebody answers for every model."""

from __future__ import annotations

from collections.abc import Iterator

from floe_dagster.findings import Finding
from floe_dagster.policies.model import Project, meta_of
from floe_dagster.policies.policy import Policy


class Ownership(Policy):
    """Every model has somebody who answers for it."""

    name = "ownership"
    title = "Ownership"
    description = (
        "Every model has an owner (`meta.owner`, or a dbt group), or the product has (`metadata.owner`)."
    )

    def check(self, project: Project, _setting: None) -> Iterator[Finding]:
        """Every model has somebody who answers for it."""
        if project.context.owner:
            return
        for node in project.models:
            if not meta_of(node).get("owner") and not node.get("group"):
                yield project.finding(
                    node,
                    f"model {node['name']!r} has no owner",
                    "Add `config: {meta: {owner: …}}`, or metadata.owner in floe.yaml.",
                    "model-owner",
                )
