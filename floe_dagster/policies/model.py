"""What policies get and give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from floe_dagster.findings import Finding
from floe_dagster.policies.asset_names import as_asset
from floe_dagster.policies.places import DescriptionPlaces

LEVELS = ("off", "warn", "strict")


def _no_text(_path: str) -> str | None:
    return None


@dataclass(slots=True)
class PolicyContext:
    """What is in force for one product.

    Args:
        level: Effective enforcement level: off, warn or strict.
        settings: What is in force of the policies' settings, by field of `governance`.
        tiers: Tier by model name, as the product spec says.
        owner: The product's owner.
        approved_plugins: Plugin types that may be used, by category.
        plugins_used: Plugin type by category.
        further_engines: Engine by its place in the manifest, such as `additional_compute[0]`, where models name it.
        plugin_places: File and line where each category's type stands.
        document_findings: What reading the documents found: literal secrets, disagreement.
        path_prefix: Display path of the product's folder.
        read_text: Returns the text of a file by its path below the product's folder, None where absent.
    """

    level: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    tiers: Mapping[str, str] = field(default_factory=dict)
    owner: str | None = None
    approved_plugins: Mapping[str, Sequence[str]] | None = None
    plugins_used: Mapping[str, str] = field(default_factory=dict)
    further_engines: Mapping[str, str] = field(default_factory=dict)
    plugin_places: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    document_findings: Sequence[Finding] = ()
    path_prefix: str = ""
    read_text: Callable[[str], str | None] = _no_text


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """The outcome of one policy.

    Args:
        name: Of the policy.
        status: off, passed, warned or failed.
        level: The level it ran at.
        findings: What it found.
    """

    name: str
    status: str
    level: str
    findings: tuple[Finding, ...] = ()


@dataclass(slots=True)
class PolicyReport:
    """The outcome of all policies.

    Args:
        level: The general enforcement level.
        results: By policy.
        models_validated: Models that were looked at.
    """

    level: str
    results: dict[str, PolicyResult]
    models_validated: int

    @property
    def findings(self) -> list[Finding]:
        """All findings, in the order of the policies."""
        return [finding for result in self.results.values() for finding in result.findings]

    @property
    def policy_types_checked(self) -> list[str]:
        """Names of the policies that were not off."""
        return [result.name for result in self.results.values() if result.status != "off"]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "level": self.level,
            "models_validated": self.models_validated,
            "policy_types_checked": self.policy_types_checked,
            "results": {
                name: {
                    "status": result.status,
                    "level": result.level,
                    "findings": [finding.to_dict() for finding in result.findings],
                }
                for name, result in self.results.items()
            },
        }


@dataclass(slots=True)
class Project:
    """The parts of dbt's manifest that policies look at.

    Args:
        models: Models and snapshots of the project itself, ordered by name.
        tests: Names of the data tests by unique id of what they test.
        by_id: Every model, snapshot and seed, of packages too, each under the name of its asset.
        context: What is in force.
        places: Where models are described.
    """

    models: list[dict[str, Any]]
    tests: dict[str, list[str]]
    by_id: dict[str, dict[str, Any]]
    context: PolicyContext
    places: DescriptionPlaces

    @classmethod
    def of(cls, manifest: Mapping[str, Any], context: PolicyContext) -> Project:
        name = manifest["metadata"]["project_name"]
        models, by_id = [], {}
        tests: dict[str, list[str]] = {}
        for unique_id, node in manifest["nodes"].items():
            if node["resource_type"] in ("model", "snapshot", "seed"):
                node = by_id[unique_id] = as_asset(node)
                if node["package_name"] == name and node["resource_type"] != "seed":
                    models.append(node)
            elif node["resource_type"] == "test":
                attached = node.get("attached_node")
                for upstream in [attached] if attached else node["depends_on"]["nodes"]:
                    tests.setdefault(upstream, []).append(node["name"])
        models.sort(key=lambda node: node["name"])
        return cls(models, tests, by_id, context, DescriptionPlaces(context.read_text))

    def finding(
        self,
        node: Mapping[str, Any],
        message: str,
        fix: str,
        code: str,
        *,
        column: str | None = None,
        sql_line: int | None = None,
    ) -> Finding:
        """Return a finding at a model's place; the severity is set by the level later.

        Args:
            node: The model.
            message: What is wrong.
            fix: What to do.
            code: Of the rule.
            column: The place is this column's entry.
            sql_line: The place is this line of the model's SQL.
        """
        described = self.places.of(node, column) if sql_line is None else None
        file, line = described or (node["original_file_path"], sql_line or 1)
        prefix = self.context.path_prefix
        return Finding(
            code=code,
            severity="warning",
            kind="policy",
            message=message,
            file=f"{prefix}/{file}" if prefix else file,
            line=line,
            model=node["name"],
            fix=fix,
        )


def meta_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return `meta` of a node or column, wherever dbt keeps it."""
    return {**(node.get("meta") or {}), **((node.get("config") or {}).get("meta") or {})}


def tags_of(node: Mapping[str, Any]) -> set[str]:
    """Return the tags of a node or column, wherever dbt keeps them."""
    inner = (node.get("config") or {}).get("tags") or []
    outer = node.get("tags") or []
    return {str(tag) for tag in [*outer, *([inner] if isinstance(inner, str) else inner)]}
