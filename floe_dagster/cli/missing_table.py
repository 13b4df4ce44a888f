"""Why a table is not there that somebody wants to see."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from floe_dagster.cli.dagster_home import dagster_home, named_dagster_home
from floe_dagster.compilation.asset_index import ASSET_TYPES
from floe_dagster.compilation.bundle import Bundle
from floe_dagster.compilation.sources import PROJECT_FILE, source_state
from floe_dagster.compilation.suggestions import did_you_mean, some
from floe_dagster.compilation.unpublished import DbtProject, model_unpublished
from floe_dagster.home import FloeHome, display_path, find_project_root
from floe_dagster.named_manifests import lenient_yaml
from floe_dagster.policies.asset_names import asset_name

NEVER_RUN = "nothing is published yet; run `floe-dagster run`"


def why_missing(
    model: str, bundle: Bundle, product_dir: Path, home: FloeHome, published: Collection[str]
) -> str:
    """Return why a product has no table of a name, and what to do.

    Args:
        model: Asked for.
        bundle: Of the product, as it was compiled last.
        product_dir: The product's folder.
        home: The writable folder.
        published: Names of the product's tables that are there.
    """
    product_dir = Path(os.path.abspath(product_dir))
    shown = display_path(product_dir, find_project_root(product_dir))
    project = DbtProject(bundle.slug, shown, lenient_yaml(product_dir / PROJECT_FILE))
    manifest = bundle.dbt_manifest()
    nodes = {
        asset_name(node): node for node in manifest["nodes"].values() if node["resource_type"] in ASSET_TYPES
    }
    node = nodes.get(model)
    if node is None:
        return _unknown(model, bundle, product_dir, home, project, {*nodes, *published})
    unpublished = model_unpublished(node, project)
    if unpublished is not None:
        is_current = source_state(product_dir, home=home).digest == bundle.digest
        compiled = "" if is_current else " (as the product was compiled last)"
        return f"{unpublished.reason}{compiled}\n    fix:     {unpublished.fix} Then run `floe-dagster run`."
    return _not_yet(bundle.slug, model, home, published)


def _unknown(
    model: str, bundle: Bundle, product_dir: Path, home: FloeHome, project: DbtProject, known: Collection[str]
) -> str:
    state = source_state(product_dir, home=home)
    nodes = bundle.dbt_manifest()["nodes"].values()
    files = project.disabled_models((file.name for file in state.files), nodes)
    if model not in files:
        near = did_you_mean(model, known)
        said = f"{bundle.product_name} has no model of that name"
        return f"{said}. {near}" if near else f"{said}; it has {some(known) or 'none at all'}"
    file = project.path(files[model])
    if state.digest != bundle.digest:
        return f"{file} is no part of what was compiled last; run `floe-dagster run`"
    fix = f"Take that out of {file}, out of its YAML or out of {project.file}. Then run `floe-dagster run`."
    return f"model {model!r} is disabled (`enabled: false`)\n    fix:     {fix}"


def _not_yet(slug: str, model: str, home: FloeHome, published: Collection[str]) -> str:
    folder = dagster_home(home)
    never = NEVER_RUN if not published else "no run has published it yet; run `floe-dagster run`"
    if not folder.is_dir():
        return never
    import dagster as dg

    from floe_dagster.definitions.last_runs import last_run

    try:
        with named_dagster_home(home), dg.DagsterInstance.get() as instance:
            found = last_run(instance, slug, model)
    except (
        Exception
    ) as error:  # whatever the storage of the runs raises: what is known of the table is said all the same
        return f"it is not published, and what its last run came to cannot be read from {folder}: {error}"
    return found.told() if found is not None else never
