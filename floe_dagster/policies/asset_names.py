"""What assets and tables are called, and what people call them: the versions of a model share a name in dbt."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from floe_dagster.schemas.patterns import Pattern


def asset_name(node: Mapping[str, Any]) -> str:
    """Return what the asset of a model, seed or snapshot is called, and its table: its name; a version's alias.

    Versions of a model share the model's name. dbt gives each an alias of its own, `dim_v1` where nobody says another.

    Args:
        node: Of dbt's manifest.
    """
    return str(node["alias"] if node.get("version") is not None else node["name"])


def model_name(node: Mapping[str, Any]) -> str:
    """Return what dbt's YAML and `ref` call a node; the versions of a model share it.

    Args:
        node: Of dbt's manifest, or from `as_asset`.
    """
    return str(node.get("model_name", node["name"]))


def as_asset(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node under the name of its asset, so that messages tell the versions of a model apart."""
    if node.get("version") is None:
        return dict(node)
    return {**node, "name": asset_name(node), "model_name": node["name"]}


def named_by(node: Mapping[str, Any], names: Collection[str]) -> str | None:
    """Return which of the names of `transforms` means a node: its asset's, else that of all versions; None where none does.

    Args:
        node: Of dbt's manifest, or from `as_asset`.
        names: Of the transforms.
    """
    return next((name for name in (asset_name(node), model_name(node)) if name in names), None)


def follows(node: Mapping[str, Any], pattern: Pattern) -> bool:
    """Tell whether the name of a node's table matches; the ending that dbt gives a version counts for nothing.

    Args:
        node: Of dbt's manifest, or from `as_asset`.
        pattern: The whole name has to match.
    """
    name = asset_name(node)
    if node.get("version") is not None:
        model = model_name(node)
        name = model if name == f"{model}_v{str(node['version']).replace('.', '_')}" else name
    return pattern.fullmatch(name) is not None
