"""Two YAML documents and a dbt project become governed Dagster definitions.

What a Dagster project of your own needs is exported here. Importing it is cheap: each name imports what it stands for when it is
used for the first time.

>>> from pathlib import Path
>>> from floe_dagster import validate_product
>>> validate_product(Path("products/customer_360"), documents_only=True).blocked
False
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from floe_dagster.compilation.bundle import BundleError
    from floe_dagster.compilation.result import CompileResult
    from floe_dagster.definitions.compiling import compile_product, validate_product
    from floe_dagster.definitions.component import FloeProduct
    from floe_dagster.definitions.factory import build_product_definitions
    from floe_dagster.definitions.loader import load_all_product_definitions, load_product_definitions
    from floe_dagster.engines.errors import EngineError
    from floe_dagster.errors import FloeError
    from floe_dagster.findings import Finding, InputError
    from floe_dagster.iceberg.errors import CatalogError, PublicationError
    from floe_dagster.platform.waiting import PlatformError

__all__ = [
    "BundleError",
    "CatalogError",
    "CompileResult",
    "EngineError",
    "Finding",
    "FloeError",
    "FloeProduct",
    "InputError",
    "PlatformError",
    "PublicationError",
    "build_product_definitions",
    "compile_product",
    "load_all_product_definitions",
    "load_product_definitions",
    "validate_product",
]

_MODULES = {
    "BundleError": "compilation.bundle",
    "CatalogError": "iceberg.errors",
    "CompileResult": "compilation.result",
    "EngineError": "engines.errors",
    "Finding": "findings",
    "FloeError": "errors",
    "FloeProduct": "definitions.component",
    "InputError": "findings",
    "PlatformError": "platform.waiting",
    "PublicationError": "iceberg.errors",
    "build_product_definitions": "definitions.factory",
    "compile_product": "definitions.compiling",
    "load_all_product_definitions": "definitions.loader",
    "load_product_definitions": "definitions.loader",
    "validate_product": "definitions.compiling",
}


def __getattr__(name: str) -> Any:
    # Dagster takes a second to import, and neither the command line nor the schemas need it.
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(f"floe_dagster.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'floe_dagster' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
