"""What every catalog that is a server of the Iceberg REST protocol has as settings."""

from __future__ import annotations

from pydantic import Field

from floe_dagster.schemas.addresses import Url
from floe_dagster.schemas.base import Seconds, Section


class RestServerConfig(Section):
    uri: Url = Field(description="URI of the Iceberg REST catalog; of Polaris it ends in /api/catalog.")
    warehouse: str = Field(description="Name of the warehouse, which is a catalog of Polaris.")
    credential_vending: bool = Field(
        True,
        description="Take storage credentials from the catalog, which needs a storage with an STS; false takes those of "
        "plugins.storage.",
    )
    timeout_seconds: Seconds = Field(60.0, description="How long one answer of the catalog may take.")
