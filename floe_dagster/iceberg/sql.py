"""The catalog in a database; without settings a SQLite file under `FLOE_HOME`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse, urlsplit, urlunsplit

from floe_dagster.home import FloeHome
from floe_dagster.iceberg.errors import CatalogError
from floe_dagster.iceberg.storage import Storage

if TYPE_CHECKING:
    from pyiceberg.catalog.sql import SqlCatalog

CONNECT_SECONDS = 10
"""So long a database may take to answer whoever connects."""


def open_sql(
    config: Mapping[str, Any], settings: Mapping[str, Any], storage: Storage, home: FloeHome
) -> SqlCatalog:
    """Open a catalog of type sql; see `CatalogType.opener`.

    Raises:
        CatalogError: The database cannot be opened, or the warehouse's folder not be made.
    """
    from pyiceberg.catalog.sql import SqlCatalog
    from sqlalchemy.exc import SQLAlchemyError

    warehouse = str(config.get("warehouse") or storage.warehouse(settings, home))
    uri = config.get("uri")
    try:
        if not uri:
            home.path.mkdir(parents=True, exist_ok=True)
            escaped = str(home.catalog_db).replace("%", "%25")
            uri = f"sqlite:///{escaped}?timeout=60"
        uri = _bounded(str(uri))
        if warehouse.startswith("file://"):
            Path(urlparse(warehouse).path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CatalogError(f"the warehouse folder cannot be made: {error}") from error
    begun = time.monotonic()
    for attempt in range(5):
        try:
            return SqlCatalog("floe", uri=uri, warehouse=warehouse, **storage.file_io(settings, vended=False))
        except SQLAlchemyError as error:
            # Two processes that open a fresh catalog both want to make its tables. What does not answer is not asked again.
            if attempt == 4 or time.monotonic() - begun >= CONNECT_SECONDS:
                raise CatalogError(f"the catalog cannot be opened: {str(error).splitlines()[0]}") from error
            time.sleep(0.1 * 2**attempt)
    raise AssertionError("unreachable")


def _bounded(uri: str) -> str:
    """Return the URI of a database with a bound for the time that it takes to connect, where PostgreSQL's client has none."""
    parts = urlsplit(uri)
    if not parts.scheme.startswith("postgres") or "connect_timeout=" in parts.query:
        return uri
    query = f"{parts.query}&" if parts.query else ""
    return urlunsplit(parts._replace(query=f"{query}connect_timeout={CONNECT_SECONDS}"))
