"""Two YAML documents and a dbt project become governed Dagster definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from floe_dagster.definitions.component import FloeProduct
    from floe_dagster.definitions.factory import build_product_definitions
    from floe_dagster.definitions.loader import load_product_definitions

__all__ = ["FloeProduct", "build_product_definitions", "load_product_definitions"]

_HOMES = {
    "FloeProduct": "floe_dagster.definitions.component",
    "build_product_definitions": "floe_dagster.definitions.factory",
    "load_product_definitions": "floe_dagster.definitions.loader",
}


def __getattr__(name: str) -> Any:
    # Dagster takes a second to import, and neither the command line nor the schemas need it.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'floe_dagster' has no attribute {name!r}")
