"""The one door to Iceberg catalogs; a catalog type is one entry of `CATALOGS`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from floe_dagster.home import FloeHome
from floe_dagster.iceberg.errors import CatalogError

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog


class Plugin(Protocol):
    """A plugin of the artifact: its type and its settings."""

    type: str
    config: dict[str, Any] | None


def open_catalog(catalog: Plugin | None, storage: Plugin | None, *, home: FloeHome) -> Catalog:
    """Open the catalog that an artifact names.

    Args:
        catalog: `plugins.catalog`; the embedded one when absent.
        storage: `plugins.storage`; a folder when absent.
        home: Where the embedded catalog and warehouse lie.

    Raises:
        CatalogError: The type is not supported, or the catalog cannot be opened.
    """
    kind = catalog.type if catalog else "sql"
    opener = CATALOGS.get(kind)
    if opener is None:
        raise CatalogError(f"catalog {kind!r} cannot be opened; this version opens: {', '.join(CATALOGS)}")
    if storage is not None and storage.type != "local":
        raise CatalogError(f"storage {storage.type!r} cannot be written; this version writes: local")
    return opener(
        (catalog.config if catalog else None) or {}, (storage.config if storage else None) or {}, home
    )


def _open_sql(config: Mapping[str, Any], storage: Mapping[str, Any], home: FloeHome) -> Catalog:
    from pyiceberg.catalog.sql import SqlCatalog
    from sqlalchemy.exc import SQLAlchemyError

    folder = Path(storage.get("path") or home.warehouse_dir)
    warehouse = config.get("warehouse") or folder.absolute().as_uri()
    uri = config.get("uri")
    try:
        if not uri:
            home.path.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{home.catalog_db}?timeout=60"
        if str(warehouse).startswith("file://"):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CatalogError(f"the warehouse folder cannot be made: {error}") from error
    for attempt in range(5):
        try:
            return SqlCatalog("floe", uri=uri, warehouse=warehouse)
        except SQLAlchemyError as error:
            # Two processes that open a fresh catalog both want to make its tables.
            if attempt == 4:
                raise CatalogError(f"the catalog cannot be opened: {str(error).splitlines()[0]}") from error
            time.sleep(0.1 * 2**attempt)
    raise AssertionError("unreachable")


CATALOGS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any], FloeHome], Catalog]] = {"sql": _open_sql}
