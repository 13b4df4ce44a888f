"""Apache Polaris: it speaks the Iceberg REST protocol, and has an API that makes catalogs, principals and grants."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from floe_dagster.schemas.base import Section
from floe_dagster.schemas.catalog_types.catalog_type import CatalogType
from floe_dagster.schemas.catalog_types.oauth2 import OAuth2Config
from floe_dagster.schemas.catalog_types.rest_server import RestServerConfig


class PolarisCatalogConfig(RestServerConfig):
    oauth2: OAuth2Config = Field(description="OAuth2 client credentials.")


class PolarisCatalog(Section):
    type: Literal["polaris"] = Field(description="Catalog.")
    version: str | None = Field(None, description="Version the platform asks for; informative.")
    config: PolarisCatalogConfig = Field(description="Settings of the catalog.")


POLARIS = CatalogType(
    name="polaris",
    title="Apache Polaris",
    plugin=PolarisCatalog,
    opener="floe_dagster.iceberg.rest:open_rest",
    is_shared=True,
    lends_keys=True,
    resource="floe_dagster.definitions.catalog_resources:PolarisResource",
    server="floe_dagster.platform.rest_server:RestServer",
    bootstrap="floe_dagster.platform.polaris_bootstrap:bootstrap_polaris",
)
