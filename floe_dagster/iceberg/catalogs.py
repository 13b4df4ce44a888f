"""The one door to Iceberg catalogs; what types there are stands in `schemas.catalog_types`."""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Protocol

from floe_dagster.credentials import MissingCredentialError, environment_name, resolve
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.errors import NotUsableError
from floe_dagster.iceberg.storage import storage_of
from floe_dagster.schemas.catalog_types import CATALOG_TYPES, DEFAULT_CATALOG_TYPE
from floe_dagster.schemas.storage_types import DEFAULT_STORAGE_TYPE

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
    name = catalog.type if catalog else DEFAULT_CATALOG_TYPE
    kind = CATALOG_TYPES.get(name)
    if kind is None:
        raise NotUsableError(
            f"catalog {name!r} cannot be opened; this version opens: {', '.join(CATALOG_TYPES)}"
        )
    store = storage_of(storage.type if storage else DEFAULT_STORAGE_TYPE)
    config = dict((catalog.config if catalog else None) or {})
    settings = dict((storage.config if storage else None) or {})
    try:
        config = _resolved(config, "plugins.catalog.config", environ)
        if not kind.gives_keys(config):
            _resolve_storage(settings, environ)
    except MissingCredentialError as error:
        raise NotUsableError(str(error)) from None
    opened: Catalog = resolve_name(kind.opener)(config, settings, store, home)
    return opened


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


def _resolved(value: Any, place: str, environ: Mapping[str, str] | None) -> Any:
    """Return settings with every reference to a secret in them resolved."""
    if environment_name(value) is not None:
        return resolve(value, place, environ)
    if isinstance(value, Mapping):
        return {name: _resolved(inner, f"{place}.{name}", environ) for name, inner in value.items()}
    return value


def _resolve_storage(config: dict[str, Any], environ: Mapping[str, str] | None) -> None:
    for name in ("access_key_id", "secret_access_key"):
        if config.get(name):
            config[name] = resolve(config[name], f"plugins.storage.config.{name}", environ)
