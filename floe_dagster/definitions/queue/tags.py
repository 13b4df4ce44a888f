"""Run tags by which an instance limits how many runs go on: of a product, on an engine, against a catalog.

An op has one pool, and a product's writer takes it. What a run needs besides is said by tags, which Dagster's queue counts
before it starts anything: a run that waits is a row in a database and holds no process and no pod.
"""

from __future__ import annotations

from collections.abc import Iterable

from floe_dagster.schemas.artifacts import PluginRef, ResolvedPlugins
from floe_dagster.schemas.catalog_types import DEFAULT_CATALOG_TYPE

PRODUCT_TAG = "floe/product"
ENGINE_TAGS = "floe/engine."
"""A tag for each engine begins so: a run has one value of a tag, and may be on several engines."""
CATALOG_TAG = "floe/catalog"
TURN_TAG = "floe/turn"
"""The priority that the queue gave, beside `dagster/priority`: what differs from it was chosen by a person."""


def is_queue_tag(key: str) -> bool:
    """Whether the queue counts runs by a tag.

    Args:
        key: Of the tag.
    """
    return key in (PRODUCT_TAG, CATALOG_TAG) or key.startswith(ENGINE_TAGS)


def engine_tag(engine: str) -> str:
    """Return the key of the tag that runs on an engine have; it says `true`.

    Args:
        engine: `plugins.compute.type`.
    """
    return f"{ENGINE_TAGS}{engine}"


def run_tags(slug: str, plugins: ResolvedPlugins | None, engines: Iterable[str]) -> dict[str, str]:
    """Return the tags of a job that computes and publishes.

    Args:
        slug: Of the product.
        plugins: From the compiled artifact.
        engines: On which dbt runs.
    """
    return {PRODUCT_TAG: slug, **{engine_tag(name): "true" for name in engines}, **catalog_tags(plugins)}


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
        return DEFAULT_CATALOG_TYPE
    return str((catalog.config or {}).get("warehouse") or catalog.type)
