"""Run tags by which an instance limits how many runs go on: of a product, on an engine, against a catalog.

An op has one pool, and a product's writer takes it. What a run needs besides is said by tags, which Dagster's queue counts
before it starts anything: a run that waits is a row in a database and holds no process and no pod.
"""

from __future__ import annotations

from floe_dagster.schemas.artifacts import PluginRef, ResolvedPlugins

PRODUCT_TAG = "floe/product"
ENGINE_TAG = "floe/engine"
CATALOG_TAG = "floe/catalog"
TURN_TAG = "floe/turn"
"""The priority that the queue gave, beside `dagster/priority`: what differs from it was chosen by a person."""
QUEUE_TAGS = (PRODUCT_TAG, ENGINE_TAG, CATALOG_TAG)


def run_tags(slug: str, plugins: ResolvedPlugins | None, engine: str) -> dict[str, str]:
    """Return the tags of a job that computes and publishes.

    Args:
        slug: Of the product.
        plugins: From the compiled artifact.
        engine: On which dbt runs.
    """
    return {PRODUCT_TAG: slug, ENGINE_TAG: engine, **catalog_tags(plugins)}


def catalog_tags(plugins: ResolvedPlugins | None) -> dict[str, str]:
    """Return the tags of a job that commits to the catalog and computes on no engine.

    Args:
        plugins: From the compiled artifact.
    """
    return {CATALOG_TAG: catalog_name(plugins.catalog if plugins else None)}


def catalog_name(catalog: PluginRef | None) -> str:
    """Return under which name the limits of an instance know a catalog.

    It is the warehouse, which is the catalog's name for REST and Polaris; a URI may hold a password and is not used.

    Args:
        catalog: From the compiled artifact; the embedded one where there is none.
    """
    if catalog is None:
        return "sql"
    return str((catalog.config or {}).get("warehouse") or catalog.type)
