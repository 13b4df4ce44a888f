"""Apache Polaris: it speaks the Iceberg REST protocol, and has an API that makes catalogs, principals and grants."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from floe_dagster.schemas.addresses import Url
from floe_dagster.schemas.base import Seconds, Section
from floe_dagster.schemas.catalog_types.catalog_type import CatalogType
from floe_dagster.schemas.catalog_types.oauth2 import OAuth2Config


class PolarisCatalogConfig(Section):
    uri: Url = Field(description="URI of Polaris' catalog API, ending in /api/catalog.")
    warehouse: str = Field(description="Name of the Polaris catalog.")
    oauth2: OAuth2Config = Field(description="OAuth2 client credentials.")
    credential_vending: bool = Field(
        True,
        description="Take storage credentials from Polaris, which needs a storage with an STS; false takes those "
        "of plugins.storage.",
    )
    timeout_seconds: Seconds = Field(60.0, description="How long one answer of the catalog may take.")


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
