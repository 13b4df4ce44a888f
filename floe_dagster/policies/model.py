"""What policies get and give."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from floe_dagster.findings import Finding
from floe_dagster.policies.asset_names import as_asset
from floe_dagster.policies.places import DescriptionPlaces
from floe_dagster.schemas.compute import ENGINES
from floe_dagster.schemas.manifest import Exemption

ResourceType = Literal[
    "model", "snapshot", "seed", "source", "macro", "hook", "test", "package", "file", "document", "column"
]
"""What a policy may look at.

A model in Python is a model. A seed counts where it is published. `package` means that of packages, too. A document is
`floe.yaml` or a manifest; a file is any other that the digest covers. A column is one that was built.
"""
RESOURCE_TYPES: tuple[ResourceType, ...] = get_args(ResourceType)

LEVELS = ("off", "warn", "strict")
OVERLAY_FOLDER = "floe_macros"
"""Where a compilation lays the macros of an engine into its copy of the project."""


def _as_shown(node: dict[str, Any]) -> dict[str, Any]:
    return as_asset(node) if node["resource_type"] in ("model", "snapshot", "seed") else node


def _no_text(_path: str) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class SourceText:
    """A file that the digest covers.

    Args:
        name: Its path below the product's folder.
        shown: Its path for display.
        read: Gives its content; None where it cannot be read.
        is_document: It is `floe.yaml` or a manifest, whose fields are validated by themselves.
    """

    name: str
    shown: str
    read: Callable[[], bytes | None]
    is_document: bool = False


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
        files: Every file that the digest covers, those of packages too.
        package_folders: Where packages lie below the product's folder, by name.
        exemptions: What the platform exempts, for this product, until a day that has not passed.
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
    files: Sequence[SourceText] = ()
    package_folders: Mapping[str, str] = field(default_factory=dict)
    exemptions: Sequence[Exemption] = ()

    def place(self, file: str, package: str | None = None) -> str:
        """Return the path for display of a file.

        Args:
            file: Its path in the project or in a package.
            package: Name of the package that has it; None for the project itself.
        """
        file = file.removeprefix("./")
        if package is not None:
            file = f"{self.package_folders.get(package, f'dbt_packages/{package}')}/{file}"
        return f"{self.path_prefix}/{file}" if self.path_prefix else file


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """The outcome of one policy.

    Args:
        name: Of the policy.
        status: off, passed, warned or failed.
        level: The level it ran at.
        findings: What it found.
        exempted: What it found where the platform exempts it: the finding, and for what reason, by whom and until when.
    """

    name: str
    status: str
    level: str
    findings: tuple[Finding, ...] = ()
    exempted: tuple[tuple[Finding, Exemption], ...] = ()


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
                    "exempted": [
                        {
                            "finding": finding.to_dict(),
                            "exemption": exemption.model_dump(mode="json", exclude_none=True),
                        }
                        for finding, exemption in result.exempted
                    ],
                }
                for name, result in self.results.items()
            },
        }


@dataclass(frozen=True, slots=True)
class Hook:
    """SQL that dbt runs beside models.

    Args:
        kind: on-run-start, on-run-end, pre_hook or post_hook.
        sql: As it stands in the project.
        name: Of what it belongs to: a model, or the hook itself.
        node: Of dbt's manifest, for its place.
    """

    kind: str
    sql: str
    name: str
    node: Mapping[str, Any]


@dataclass(slots=True)
class Project:
    """The parts of dbt's manifest that policies look at.

    A policy gets what it says that it looks at (`Policy.looks_at`), and nothing else.

    Args:
        name: Of the dbt project.
        context: What is in force.
        places: Where models are described.
        models: Models and snapshots, ordered by name.
        seeds: Seeds that are published, ordered by name.
        sources: Sources, ordered by name.
        macros: Macros that are neither dbt's nor an adapter's, ordered by name; generic tests and materializations too.
        hooks: Of the project and of each model.
        tests: Data tests, ordered by name.
        disabled_tests: Data tests that are switched off.
        packages: Names of the dbt packages that are used.
        built_ins: Names of the macros that dbt and the adapter bring.
        by_id: Every model, snapshot and seed, of packages too, each under the name of its asset.
        dialect: sqlglot's name of the engine's SQL; None where it is unknown.
    """

    name: str
    context: PolicyContext
    places: DescriptionPlaces
    models: list[dict[str, Any]] = field(default_factory=list)
    seeds: list[dict[str, Any]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    macros: list[dict[str, Any]] = field(default_factory=list)
    hooks: list[Hook] = field(default_factory=list)
    tests: list[dict[str, Any]] = field(default_factory=list)
    disabled_tests: list[dict[str, Any]] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    built_ins: frozenset[str] = frozenset()
    by_id: dict[str, dict[str, Any]] = field(default_factory=dict)
    dialect: str | None = None

    @classmethod
    def of(cls, manifest: Mapping[str, Any], context: PolicyContext) -> Project:
        """Return what policies look at.

        Args:
            manifest: dbt's.
            context: What is in force.
        """
        name = manifest["metadata"]["project_name"]
        engine = manifest["metadata"].get("adapter_type")
        internal = {"dbt", f"dbt_{engine}"}
        nodes = sorted(map(_as_shown, manifest["nodes"].values()), key=lambda node: str(node["name"]))
        macros = manifest.get("macros", {}).values()
        own_macros = [
            macro
            for macro in macros
            if macro["package_name"] not in internal
            and not macro["original_file_path"].startswith(f"{OVERLAY_FOLDER}/")
        ]
        by_id = {
            unique_id: as_asset(node)
            for unique_id, node in manifest["nodes"].items()
            if node["resource_type"] in ("model", "snapshot", "seed")
        }
        sources = sorted(manifest.get("sources", {}).values(), key=lambda node: str(node["name"]))
        used = {str(each.get("package_name", name)) for each in (*nodes, *sources, *own_macros)}
        return cls(
            name=name,
            models=[node for node in nodes if node["resource_type"] in ("model", "snapshot")],
            seeds=[node for node in nodes if node["resource_type"] == "seed" and _is_published_seed(node)],
            sources=sources,
            macros=sorted(own_macros, key=lambda macro: str(macro["name"])),
            hooks=_hooks(nodes),
            tests=[node for node in nodes if node["resource_type"] == "test"],
            disabled_tests=_disabled_tests(manifest),
            packages=sorted(used - {name} - internal),
            built_ins=frozenset(macro["name"] for macro in macros if macro["package_name"] in internal),
            by_id=by_id,
            dialect=ENGINES[engine].dialect if engine in ENGINES else None,
            context=context,
            places=DescriptionPlaces(context.read_text),
        )

    def seen_by(self, types: Collection[ResourceType]) -> Project:
        """Return what a policy gets that looks at some types of resources.

        Args:
            types: Of resources.
        """
        everywhere = "package" in types

        def seen(nodes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
            return [
                node
                for node in nodes
                if node.get("resource_type", "macro") in types and (everywhere or self.is_own(node))
            ]

        return replace(
            self,
            models=seen(self.models),
            seeds=seen(self.seeds),
            sources=seen(self.sources),
            macros=seen(self.macros),
            hooks=[hook for hook in self.hooks if "hook" in types and (everywhere or self.is_own(hook.node))],
            tests=seen(self.tests),
            disabled_tests=seen(self.disabled_tests),
            packages=self.packages if everywhere else [],
        )

    def is_own(self, node: Mapping[str, Any]) -> bool:
        """Tell whether a node is the project's own, and no package's.

        Args:
            node: Of dbt's manifest.
        """
        return bool(node.get("package_name", self.name) == self.name)

    def finding(
        self,
        node: Mapping[str, Any],
        message: str,
        fix: str,
        code: str,
        *,
        column: str | None = None,
        sql_line: int | None = None,
        name: str | None = None,
    ) -> Finding:
        """Return a finding at a resource's place; the severity is set by the level later.

        Args:
            node: The model, or whatever else it is.
            message: What is wrong.
            fix: What to do.
            code: Of the rule.
            column: The place is this column's entry.
            sql_line: The place is this line of the model's SQL.
            name: What exemptions call it; the node's name when None.
        """
        described = self.places.of(node, column) if sql_line is None else None
        file, line = described or (node["original_file_path"], sql_line or 1)
        return Finding(
            code=code,
            severity="warning",
            kind="policy",
            message=message,
            file=self.context.place(file, None if self.is_own(node) else node["package_name"]),
            line=line,
            model=name or node["name"],
            fix=fix,
        )


def _hooks(nodes: Iterable[Mapping[str, Any]]) -> list[Hook]:
    found = []
    for node in nodes:
        if node["resource_type"] == "operation":
            kind = "on-run-end" if "on-run-end" in (node.get("tags") or node["name"]) else "on-run-start"
            found.append(Hook(kind, str(node.get("raw_code") or ""), node["name"], node))
            continue
        config = node.get("config") or {}
        for key, kind in (("pre-hook", "pre_hook"), ("post-hook", "post_hook")):
            for hook in config.get(key) or ():
                sql = hook["sql"] if isinstance(hook, Mapping) else hook
                if str(sql or "").strip():
                    found.append(Hook(kind, str(sql), node["name"], node))
    return found


def _disabled_tests(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tests that are switched off themselves, and not with what they test."""
    return [
        node
        for nodes in (manifest.get("disabled") or {}).values()
        for node in nodes
        if node["resource_type"] == "test"
        and node["config"].get("enabled") is False
        and (node.get("attached_node") is None or node["attached_node"] in manifest["nodes"])
    ]


def _is_published_seed(node: Mapping[str, Any]) -> bool:
    floe = meta_of(node).get("floe")
    return isinstance(floe, Mapping) and floe.get("publish") is True


def meta_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return `meta` of a node or column, wherever dbt keeps it."""
    return {**(node.get("meta") or {}), **((node.get("config") or {}).get("meta") or {})}


def tags_of(node: Mapping[str, Any]) -> set[str]:
    """Return the tags of a node or column, wherever dbt keeps them."""
    inner = (node.get("config") or {}).get("tags") or []
    outer = node.get("tags") or []
    return {str(tag) for tag in [*outer, *([inner] if isinstance(inner, str) else inner)]}
