"""The Dagster resources of the catalog types that are built in; their modules in `schemas.catalog_types` name them."""

from typing import Any, ClassVar, Self

from pydantic import Field

from floe_dagster.definitions.resources import CatalogResource, configured
from floe_dagster.schemas.artifacts import PluginRef
from floe_dagster.schemas.catalog_types.oauth2 import DEFAULT_SCOPE
from floe_dagster.schemas.catalog_types.polaris import POLARIS
from floe_dagster.schemas.catalog_types.rest import REST
from floe_dagster.schemas.catalog_types.sql import SQL

_OF_OAUTH2 = ("client_id", "client_secret", "scope", "token_url")


class SqlCatalogResource(CatalogResource):
    """An Iceberg catalog in a database; without settings the embedded one, a SQLite file under FLOE_HOME."""

    plugin_type: ClassVar[str] = SQL.name

    uri: str | None = Field(
        None, description="SQLAlchemy URI; SQLite under FLOE_HOME when absent.", repr=False
    )
    warehouse: str | None = Field(None, description="Warehouse location; that of the storage when absent.")


class IcebergRestResource(CatalogResource):
    """Any catalog that speaks the Iceberg REST protocol."""

    plugin_type: ClassVar[str] = REST.name

    uri: str = Field(description="URI of the Iceberg REST catalog; of Polaris it ends in /api/catalog.")
    warehouse: str = Field(description="Name of the warehouse, which is a catalog of Polaris.")
    client_id: str | None = Field(None, description="OAuth2 client id.")
    client_secret: str | None = Field(
        None, description="OAuth2 client secret, as the reference ${NAME}.", repr=False
    )
    scope: str = Field(DEFAULT_SCOPE, description="OAuth2 scope.")
    token_url: str | None = Field(None, description="Token endpoint; the catalog's own when absent.")
    token: str | None = Field(None, description="Bearer token, as the reference ${NAME}.", repr=False)
    credential_vending: bool = Field(True, description="Take storage credentials from the catalog.")
    timeout_seconds: float = Field(60.0, description="How long one answer of the catalog may take.")

    def settings(self) -> dict[str, Any]:
        """Return `config` of the plugin; see `PluginResource.settings`."""
        config = super().settings()
        oauth2 = {name: config.pop(name) for name in _OF_OAUTH2 if name in config}
        if "client_id" in oauth2:
            config["oauth2"] = oauth2
        return config

    @classmethod
    def of_plugin(cls, plugin: PluginRef) -> Self:
        """Return the resource for what an artifact has; see `PluginResource.of_plugin`."""
        settings = configured(plugin.config or {})
        settings |= settings.pop("oauth2", None) or {}
        return cls(**settings)


class PolarisResource(IcebergRestResource):
    """An Apache Polaris catalog."""

    plugin_type: ClassVar[str] = POLARIS.name
