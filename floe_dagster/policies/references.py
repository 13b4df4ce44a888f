"""References: models read through ref() and source(), so that lineage, order and tiers know what they read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from floe_dagster.findings import Finding
from floe_dagster.policies.model import Project
from floe_dagster.policies.policy import Policy
from floe_dagster.policies.sql import relations_read


class References(Policy):
    """Models read relations through ref() and source() alone."""

    name = "references"
    title = "References"
    description = (
        "Models, snapshots and tests name no relation in their SQL: they read with `ref()` and `source()`. Naming a relation "
        "of the product itself is an error at every level."
    )
    looks_at = ("model", "snapshot", "test", "package")

    def check(self, project: Project, _setting: None) -> Iterator[Finding]:
        """Models read relations through ref() and source() alone."""
        own = relations_of(project.by_id)
        for node in (*project.models, *project.tests):
            if node.get("test_metadata") or node.get("language") == "python":
                continue
            raw = node.get("raw_code") or ""
            for parts, line in relations_read(raw, project.dialect):
                if resolve(parts, own) is None and parts[0].lower() not in (
                    "information_schema",
                    "pg_catalog",
                ):
                    yield project.finding(
                        node,
                        f"{node['resource_type']} {node['name']!r} reads {'.'.join(parts)} by its name",
                        "Declare it as a source, and read it with source().",
                        "undeclared-relation",
                        sql_line=line,
                    )


def relations_of(nodes: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """Return the unique id of what dbt builds, by schema and name in lower case.

    Args:
        nodes: Models, snapshots and seeds of dbt's manifest, by unique id.
    """
    return {
        (str(node.get("schema") or "").lower(), str(node.get("alias") or node["name"]).lower()): unique_id
        for unique_id, node in nodes.items()
        if (node.get("config") or {}).get("materialized") != "ephemeral"
    }


def resolve(parts: tuple[str, ...], own: Mapping[tuple[str, str], str]) -> str | None:
    """Return the unique id of what a name in SQL means; None where it is nothing that the product builds.

    Args:
        parts: Database, schema and name, as far as the SQL has them.
        own: From `relations_of`.
    """
    name = parts[-1].lower()
    if len(parts) > 1:
        return own.get((parts[-2].lower(), name))
    return next((unique_id for (_schema, alias), unique_id in own.items() if alias == name), None)
