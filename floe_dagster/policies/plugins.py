"""Plugins: only approved types are used."""

from __future__ import annotations

from collections.abc import Iterator

from floe_dagster.findings import Finding
from floe_dagster.policies.model import Project
from floe_dagster.policies.policy import Policy


class Plugins(Policy):
    """Only approved plugins are used."""

    name = "plugins"
    title = "Plugins"
    description = "Only types in `approved_plugins` are used."
    set_by = "`approved_plugins`"
    looks_at = ("document",)

    def check(self, project: Project, _setting: None) -> Iterator[Finding]:
        """Only approved plugins are used."""
        context = project.context
        uses = [(category, category, used) for category, used in context.plugins_used.items()]
        uses += [("compute", place, used) for place, used in context.further_engines.items()]
        for category, place, used in uses:
            approved = (context.approved_plugins or {}).get(category)
            if approved is not None and used not in approved:
                file, line = context.plugin_places.get(place, (None, None))
                yield Finding(
                    code="unapproved-plugin",
                    severity="warning",
                    kind="policy",
                    message=f"{category} {used!r} is not approved",
                    file=file,
                    line=line,
                    field=f"plugins.{place}.type",
                    found=used,
                    allowed=", ".join(approved),
                    fix=f"Use an approved {category}, or have {used} added to approved_plugins.",
                )
