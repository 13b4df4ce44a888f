"""Agreement: transforms and models name each other."""

from __future__ import annotations

from collections.abc import Iterator

from floe_dagster.findings import Finding
from floe_dagster.policies.model import Project
from floe_dagster.policies.policy import Policy


class Agreement(Policy):
    """Every model of the project is named by a transform."""

    name = "agreement"
    title = "Agreement"
    description = "Every model of the project is named by a transform."
    set_by = "`transforms`"
    looks_at = ("model",)

    def check(self, project: Project, _setting: None) -> Iterator[Finding]:
        """Every model of the project is named by a transform."""
        yield from (f for f in project.context.document_findings if f.policy == "agreement")
