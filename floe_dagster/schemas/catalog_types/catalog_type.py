"""What the rest of the package needs to know of a catalog type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from floe_dagster.schemas.base import Section


@dataclass(frozen=True, slots=True)
class CatalogType:
    """A type of Iceberg catalog: one module of this package, listed in its registry.

    Nothing else in floe-dagster asks for a catalog type by its name. What needs PyIceberg or Dagster, or talks to a server, is
    named as `module:attribute` and imported when it is used.

    Args:
        name: `plugins.catalog.type`.
        title: Its name for people.
        plugin: Model of `plugins.catalog` for this type.
        opener: Function that gives the opened `pyiceberg.catalog.Catalog`, like `iceberg.sql.open_sql`. It gets the settings with
            their secrets resolved, those of the storage, the storage, and the writable folder.
        is_shared: An engine outside of this process reaches the same tables in it, over Iceberg's REST protocol. Its `uri` is then
            an address that may be shown.
        lends_keys: It gives the keys of the storage itself, unless `credential_vending: false` is set.
        resource: Class of the Dagster resource, a `definitions.resources.CatalogResource`. The usual one takes any settings.
        server: Class that `platform` asks where the catalog is a server, like `platform.rest_server.RestServer`; None where it is
            none.
        bootstrap: Function that makes what is missing in the server, like `platform.polaris_bootstrap.bootstrap_polaris`; None
            where nothing has to be made.
    """

    name: str
    title: str
    plugin: type[Section]
    opener: str
    is_shared: bool = False
    lends_keys: bool = False
    resource: str = "floe_dagster.definitions.resources:AnyCatalogResource"
    server: str | None = None
    bootstrap: str | None = None

    def gives_keys(self, config: Mapping[str, Any]) -> bool:
        """Tell whether the catalog, and not the manifest, gives the keys of the storage.

        Args:
            config: `plugins.catalog.config`.
        """
        return self.lends_keys and config.get("credential_vending") is not False
