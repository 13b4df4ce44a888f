"""Built columns: what a run has built is what the product describes. Runs look at it, before they publish."""

from __future__ import annotations

from collections.abc import Iterator

from floe_dagster.findings import Finding
from floe_dagster.policies.model import Project
from floe_dagster.policies.policy import Policy


class BuiltColumns(Policy):
    """The columns that were built are those that the product describes."""

    name = "built_columns"
    title = "Built columns"
    description = (
        "The columns that a run has built are described where `require_descriptions` asks for it, have the `data_type` that the "
        "YAML declares, and are classified where they are named like personal data. Runs look at them before they publish: "
        "under `strict` a table that differs is withheld, under `warn` this check warns."
    )
    set_by = "`require_descriptions`, `pii_encryption`, `columns[].data_type`"
    looks_at = ("column",)

    def check(self, project: Project, _setting: None) -> Iterator[Finding]:
        """Find nothing yet: which columns a query gives, only the engine knows."""
        yield from ()
