"""A catalog in a database, which PyIceberg writes itself; a SQLite file where no other is named."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from floe_dagster.schemas.base import Section
from floe_dagster.schemas.catalog_types.catalog_type import CatalogType


class SqlCatalogConfig(Section):
    uri: str | None = Field(None, description="SQLAlchemy URI; SQLite under FLOE_HOME when absent.")
    warehouse: str | None = Field(None, description="Warehouse location; FLOE_HOME/warehouse when absent.")


class SqlCatalog(Section):
    type: Literal["sql"] = Field(description="Catalog.")
    version: str | None = Field(None, description="Version the platform asks for; informative.")
    config: SqlCatalogConfig = Field(default_factory=SqlCatalogConfig, description="Settings of the catalog.")


SQL = CatalogType(
    name="sql",
    title="SQL",
    plugin=SqlCatalog,
    opener="floe_dagster.iceberg.sql:open_sql",
    resource="floe_dagster.definitions.catalog_resources:SqlCatalogResource",
)
