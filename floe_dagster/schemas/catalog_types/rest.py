"""Any catalog that speaks the Iceberg REST protocol."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from floe_dagster.schemas.base import Section
from floe_dagster.schemas.catalog_types.catalog_type import CatalogType
from floe_dagster.schemas.catalog_types.oauth2 import OAuth2Config
from floe_dagster.schemas.catalog_types.rest_server import RestServerConfig
from floe_dagster.schemas.secrets import Secret


class RestCatalogConfig(RestServerConfig):
    oauth2: OAuth2Config | None = Field(None, description="OAuth2 client credentials.")
    token: Secret | None = Field(None, description="Bearer token, by reference.")


class RestCatalog(Section):
    type: Literal["rest"] = Field(description="Catalog.")
    version: str | None = Field(None, description="Version the platform asks for; informative.")
    config: RestCatalogConfig = Field(description="Settings of the catalog.")


REST = CatalogType(
    name="rest",
    title="Iceberg REST",
    plugin=RestCatalog,
    opener="floe_dagster.iceberg.rest:open_rest",
    is_shared=True,
    lends_keys=True,
    resource="floe_dagster.definitions.catalog_resources:IcebergRestResource",
    server="floe_dagster.platform.rest_server:RestServer",
)
