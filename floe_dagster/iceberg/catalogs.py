"""The one door to Iceberg catalogs; a catalog type is one entry of `CATALOGS`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlparse

from floe_dagster.credentials import MissingCredentialError, resolve
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.errors import CatalogError, NotUsableError
from floe_dagster.iceberg.storage import STORAGES, Storage

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog


class Plugin(Protocol):
    """A plugin of the artifact: its type and its settings."""

    type: str
    config: dict[str, Any] | None


def open_catalog(
    catalog: Plugin | None,
    storage: Plugin | None,
    *,
    home: FloeHome,
    environ: Mapping[str, str] | None = None,
) -> Catalog:
    """Open the catalog that an artifact names.

    Args:
        catalog: `plugins.catalog`; the embedded one when absent.
        storage: `plugins.storage`; a folder when absent.
        home: Where the embedded catalog and warehouse lie.
        environ: Where references to secrets are looked up; `os.environ` when left out.

    Raises:
        NotUsableError: A type is not supported, a secret is not set, or the catalog refuses.
        CatalogError: The catalog cannot be opened.
    """
    kind = catalog.type if catalog else "sql"
    opener = CATALOGS.get(kind)
    if opener is None:
        raise NotUsableError(f"catalog {kind!r} cannot be opened; this version opens: {', '.join(CATALOGS)}")
    storage_kind = storage.type if storage else "local"
    store = STORAGES.get(storage_kind)
    if store is None:
        raise NotUsableError(
            f"storage {storage_kind!r} cannot be written; this version writes: {', '.join(STORAGES)}"
        )
    config = dict((catalog.config if catalog else None) or {})
    settings = dict((storage.config if storage else None) or {})
    try:
        _resolve_catalog(config, environ)
        if not is_vended(kind, config):
            _resolve_storage(settings, environ)
    except MissingCredentialError as error:
        raise NotUsableError(str(error)) from None
    return opener(config, settings, store, home)


def is_vended(kind: str, config: Mapping[str, Any]) -> bool:
    """Tell whether the catalog, and not the manifest, gives the keys of the storage."""
    return kind in ("rest", "polaris") and config.get("credential_vending") is not False


def request_counts(catalog: Catalog | None) -> dict[str, int]:
    """Return how many tokens were issued and how many requests were repeated; none where nobody counts."""
    counts = getattr(catalog, "request_counts", None)
    return counts() if counts is not None else {}


def table_location(catalog: Catalog, namespace: str, name: str) -> tuple[str, str | None] | None:
    """Return where a table lies, and the id of its snapshot where it has one; None where there is no table.

    Args:
        catalog: From `open_catalog`.
        namespace: Of the table.
        name: Of the table.
    """
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    try:
        table = catalog.load_table((namespace, name))
    except (NoSuchTableError, NoSuchNamespaceError, OSError):
        return None
    snapshot = table.current_snapshot()
    return table.location(), str(snapshot.snapshot_id) if snapshot else None


def _resolve_catalog(config: dict[str, Any], environ: Mapping[str, str] | None) -> None:
    place = "plugins.catalog.config"
    if config.get("oauth2"):
        oauth2 = dict(config["oauth2"])
        oauth2["client_id"] = resolve(oauth2.get("client_id"), f"{place}.oauth2.client_id", environ)
        oauth2["client_secret"] = resolve(
            oauth2.get("client_secret"), f"{place}.oauth2.client_secret", environ
        )
        config["oauth2"] = oauth2
    if config.get("token"):
        config["token"] = resolve(config["token"], f"{place}.token", environ)


def _resolve_storage(config: dict[str, Any], environ: Mapping[str, str] | None) -> None:
    for name in ("access_key_id", "secret_access_key"):
        if config.get(name):
            config[name] = resolve(config[name], f"plugins.storage.config.{name}", environ)


def _open_sql(
    config: Mapping[str, Any], settings: Mapping[str, Any], storage: Storage, home: FloeHome
) -> Catalog:
    from pyiceberg.catalog.sql import SqlCatalog
    from sqlalchemy.exc import SQLAlchemyError

    warehouse = str(config.get("warehouse") or storage.warehouse(settings, home))
    uri = config.get("uri")
    try:
        if not uri:
            home.path.mkdir(parents=True, exist_ok=True)
            escaped = str(home.catalog_db).replace("%", "%25")
            uri = f"sqlite:///{escaped}?timeout=60"
        if warehouse.startswith("file://"):
            Path(urlparse(warehouse).path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CatalogError(f"the warehouse folder cannot be made: {error}") from error
    for attempt in range(5):
        try:
            return SqlCatalog("floe", uri=uri, warehouse=warehouse, **storage.file_io(settings, vended=False))
        except SQLAlchemyError as error:
            # Two processes that open a fresh catalog both want to make its tables.
            if attempt == 4:
                raise CatalogError(f"the catalog cannot be opened: {str(error).splitlines()[0]}") from error
            time.sleep(0.1 * 2**attempt)
    raise AssertionError("unreachable")


def _open_rest(
    config: Mapping[str, Any], settings: Mapping[str, Any], storage: Storage, home: FloeHome
) -> Catalog:
    from floe_dagster.iceberg.rest import rest_catalog

    return rest_catalog(config, storage.file_io(settings, vended=is_vended("rest", config)))


CATALOGS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any], Storage, FloeHome], Catalog]] = {
    "sql": _open_sql,
    "rest": _open_rest,
    "polaris": _open_rest,
}
