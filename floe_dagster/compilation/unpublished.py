"""Which models become no Iceberg table, why, and what to write so that they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from floe_dagster.compilation.agreement import project_models
from floe_dagster.compilation.asset_index import ASSET_TYPES, is_published
from floe_dagster.compilation.documents import Document
from floe_dagster.compilation.result import NOTHING_PUBLISHED
from floe_dagster.compilation.sources import DBT_PATHS, PROJECT_FILE
from floe_dagster.findings import Finding
from floe_dagster.policies.asset_names import asset_name, named_by
from floe_dagster.policies.model import meta_of
from floe_dagster.policies.tiers import tier_of
from floe_dagster.schemas.product import ProductSpec

GOLD_NOT_PUBLISHED = "gold-not-published"

VIEW, EPHEMERAL, SEED, HELD_BACK, DISABLED = "view", "ephemeral", "seed", "held back", "disabled"
_MODEL_SUFFIXES = frozenset({".sql", ".py"})
_SEVERAL = {
    VIEW: "views",
    HELD_BACK: "kept from publication by `meta.floe.publish: false`",
}


@dataclass(frozen=True, slots=True)
class Unpublished:
    """Why there is no table.

    Args:
        reason: A sentence without its full stop.
        fix: What to do.
        is_asked_for: Somebody wrote that nothing is to be published.
    """

    reason: str
    fix: str
    is_asked_for: bool = False


@dataclass(frozen=True, slots=True)
class DbtProject:
    """What has to be known of a dbt project to say what to change in it.

    Args:
        slug: The product's slug, which is the project's name.
        shown: Display path of the product's folder, before which nothing stands in a path.
        settings: Content of `dbt_project.yml`.
    """

    slug: str
    shown: str
    settings: Mapping[str, Any]

    @property
    def file(self) -> str:
        """Display path of `dbt_project.yml`."""
        return self.path(PROJECT_FILE)

    def path(self, name: str) -> str:
        """Return the display path of a file by its path below the product's folder."""
        return PurePosixPath(self.shown, name).as_posix()

    def model_paths(self) -> list[str]:
        """Return the folders of the models."""
        named = self.settings.get("model-paths")
        return [str(name) for name in (named if isinstance(named, list) else DBT_PATHS["model-paths"])]

    def disabled_models(self, files: Iterable[str], nodes: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        """Return the models that are disabled: path by name. dbt makes no node of them.

        Args:
            files: Paths of the product's files.
            nodes: Of dbt's manifest.
        """
        known = {node["original_file_path"] for node in nodes}
        folders = [PurePosixPath(folder) for folder in self.model_paths()]
        paths = (PurePosixPath(file) for file in files if file not in known)
        return {
            path.stem: path.as_posix()
            for path in paths
            if path.suffix in _MODEL_SUFFIXES and any(path.is_relative_to(folder) for folder in folders)
        }

    def setting(self, section: str, setting: str) -> str:
        """Return where to write a setting for all models or seeds, with as much around it as is missing.

        Args:
            section: `models` or `seeds`.
            setting: As YAML, such as `+materialized: table`.
        """
        there = self.settings.get(section)
        if not isinstance(there, Mapping):
            return f"write `{section}: {{{self.slug}: {{{setting}}}}}` in {self.file}"
        if not isinstance(there.get(self.slug), Mapping):
            return f"write `{self.slug}: {{{setting}}}` under `{section}:` in {self.file}"
        return f"write `{setting}` under `{section}:`, `{self.slug}:` in {self.file}"


def kind_of(node: Mapping[str, Any]) -> str | None:
    """Return why a node of dbt's manifest becomes no table; None where it becomes one.

    Returns:
        One of the kinds of this module, or the name of a materialization that is none of them.
    """
    floe = meta_of(node).get("floe")
    materialized = str(node["config"].get("materialized") or node["resource_type"])
    if node["resource_type"] != "seed" and isinstance(floe, Mapping) and floe.get("publish") is False:
        return HELD_BACK
    # Nobody builds what is ephemeral, whatever its `meta` says.
    if materialized == EPHEMERAL:
        return EPHEMERAL
    if is_published(node):
        return None
    return SEED if node["resource_type"] == "seed" else materialized


def model_unpublished(node: Mapping[str, Any], project: DbtProject) -> Unpublished | None:
    """Return why one model, seed or snapshot is not published; None where it is.

    Args:
        node: Of dbt's manifest.
        project: Where it is to be changed.
    """
    kind = kind_of(node)
    if kind is None:
        return None
    what = f"{node['resource_type']} {asset_name(node)!r}"
    if kind == SEED:
        return Unpublished(
            f"{node['name']!r} is a seed, and seeds are not published by themselves",
            f"{_sentence(project.setting('seeds', '+meta: {floe: {publish: true}}'))}, which publishes all seeds.",
        )
    if kind == HELD_BACK:
        return Unpublished(
            f"{what} is not published because it says `meta.floe.publish: false`",
            "Take `publish: false` out of its `meta`.",
            is_asked_for=True,
        )
    default = ", which is dbt's default" if _is_default(node) else ""
    if kind == EPHEMERAL:
        said = "is ephemeral: dbt puts its SQL into the models that read it, and builds nothing"
    else:
        said = f"is {_a(kind)}{default}, and only tables are published"
    return Unpublished(f"{what} {said}", _sentence(_model_fix(node, project)) + ".")


def product_unpublished(
    manifest: Mapping[str, Any], files: Iterable[str], project: DbtProject
) -> Unpublished | None:
    """Return why a product publishes no table; None where it publishes one.

    Args:
        manifest: dbt's.
        files: Paths of the product's files.
        project: Where it is to be changed.
    """
    nodes = [node for node in manifest["nodes"].values() if node["resource_type"] in ASSET_TYPES]
    kinds = [(kind_of(node), node) for node in nodes]
    if any(kind is None for kind, _node in kinds):
        return None
    models = [(str(kind), node) for kind, node in kinds if kind != SEED]
    disabled = project.disabled_models(files, manifest["nodes"].values())
    if not models and not disabled:
        return _without_models(bool(nodes), project)
    counts = Counter(kind for kind, _node in models) + Counter({DISABLED: len(disabled)})
    names = [asset_name(node) for _kind, node in models] + list(disabled)
    default = all(_is_default(node) for kind, node in models if kind == VIEW)
    reason = _reason(counts, names, default=", which is dbt's default" if default else "")
    return Unpublished(
        reason, _product_fix(counts, [node for _kind, node in models], project), set(counts) == {HELD_BACK}
    )


def check_published(
    spec: ProductSpec,
    document: Document,
    manifest: Mapping[str, Any],
    files: Iterable[str],
    project: DbtProject,
    project_document: Document | None,
) -> list[Finding]:
    """Return a finding where a product publishes no table; else one for each gold model that is not published.

    Args:
        spec: The product spec.
        document: Where it was read, for positions.
        manifest: dbt's.
        files: Paths of the product's files.
        project: The dbt project.
        project_document: `dbt_project.yml`, for positions.
    """
    nothing = product_unpublished(manifest, files, project)
    if nothing is not None:
        line, column = project_document.position(("models",), key=True) if project_document else (None, None)
        return [
            Finding(
                code=NOTHING_PUBLISHED,
                severity="info" if nothing.is_asked_for else "warning",
                message=f"{spec.metadata.name} publishes no table: {nothing.reason}",
                file=project.file,
                line=line,
                column=column,
                field="models",
                fix=nothing.fix,
            )
        ]
    return list(_gold(spec, document, manifest, project))


def _gold(
    spec: ProductSpec, document: Document, manifest: Mapping[str, Any], project: DbtProject
) -> Iterable[Finding]:
    positions = {transform.name: position for position, transform in enumerate(spec.transforms or ())}
    tiers = {transform.name: transform.tier for transform in spec.transforms or () if transform.tier}
    for name, node in sorted(project_models(manifest).items()):
        said = model_unpublished(node, project) if tier_of(node, tiers) == "gold" else None
        if said is None or said.is_asked_for:
            continue
        # Where the tier is not written, the folder gives it.
        named = named_by(node, tiers)
        written = document.position(("transforms", positions[named], "tier")) if named is not None else None
        yield Finding(
            code=GOLD_NOT_PUBLISHED,
            severity="warning",
            message=f"{said.reason}, though it is gold",
            file=document.display if written else project.path(node["original_file_path"]),
            line=written[0] if written else 1,
            column=written[1] if written else None,
            field=f"transforms[{positions[named]}].tier" if named is not None else None,
            fix=f"{said.fix} Where it is not to be published, say so: `config: {{meta: {{floe: {{publish: false}}}}}}`.",
            model=name,
        )


def _without_models(has_seeds: bool, project: DbtProject) -> Unpublished:
    folders = ", ".join(f"{project.path(folder)}/" for folder in project.model_paths())
    example = project.path(f"{project.model_paths()[0]}/{project.slug}.sql") if project.model_paths() else ""
    write = f"Write a model that is a table, for example {example}" if example else "Name model-paths"
    if not has_seeds:
        return Unpublished(
            f"there is no model in {folders or 'any folder'}", f"{write}; or correct model-paths."
        )
    return Unpublished(
        "it has seeds alone, and seeds are not published by themselves",
        f"{write}; or {project.setting('seeds', '+meta: {floe: {publish: true}}')}, which publishes the seeds.",
    )


def _reason(counts: Mapping[str, int], names: Collection[str], *, default: str) -> str:
    """Return what the models are: `its 2 models are views`, `its 3 models are views (2) and ephemeral (1)`."""
    if len(names) == 1:
        ((kind, _one),) = counts.items()
        (name,) = names
        if kind == HELD_BACK:
            return f"its model {name!r} says `meta.floe.publish: false`"
        return f"its model {name!r} is {_a(kind)}{default if kind == VIEW else ''}"
    said = [(_SEVERAL.get(kind, _a(kind)), count) for kind, count in sorted(counts.items())]
    if len(said) == 1:
        return f"its {len(names)} models are {said[0][0]}{default if VIEW in counts else ''}"
    *first, last = [f"{text} ({count})" for text, count in said]
    return f"its {len(names)} models are {', '.join(first)} and {last}"


def _product_fix(counts: Mapping[str, int], nodes: Collection[Mapping[str, Any]], project: DbtProject) -> str:
    fixes = []
    to_change = [node for node in nodes if kind_of(node) != HELD_BACK]
    if any(_is_default(node) for node in to_change):
        fixes.append(f"{_sentence(project.setting('models', '+materialized: table'))}.")
    if not all(_is_default(node) for node in to_change):
        said = "/".join(
            sorted({str(node["config"]["materialized"]) for node in to_change if not _is_default(node)})
        )
        fixes.append(
            f"Say `materialized: table` in place of {said}, where it stands: in the model's SQL, in its YAML or in "
            f"{project.file}."
        )
    if HELD_BACK in counts:
        fixes.append("Take `publish: false` out of the `meta` of what is to be published.")
    if DISABLED in counts:
        fixes.append("Take `enabled: false` out of what is to be built.")
    return " ".join(fixes)


def _model_fix(node: Mapping[str, Any], project: DbtProject) -> str:
    file = project.path(node["original_file_path"])
    if not _is_default(node):
        return (
            f"say `materialized: table` in place of {node['config']['materialized']}: in {file}, in the model's YAML or in "
            f"{project.file}"
        )
    return (
        f"write `{{{{ config(materialized='table') }}}}` at the top of {file}; or, for all models, "
        f"{project.setting('models', '+materialized: table')}"
    )


def _is_default(node: Mapping[str, Any]) -> bool:
    """Tell whether nobody said how the model is materialized: dbt notes what was written before it fills in the rest."""
    return "materialized" not in (node.get("unrendered_config") or {})


def _a(kind: str) -> str:
    if kind == VIEW:
        return "a view"
    if kind in (EPHEMERAL, DISABLED):
        return "ephemeral" if kind == EPHEMERAL else "disabled (`enabled: false`)"
    return f"materialized as {kind!r}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
