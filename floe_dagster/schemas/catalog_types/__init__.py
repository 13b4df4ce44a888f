"""Types of Iceberg catalogs. Another type is one more module, and its line in `CATALOG_TYPES`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from floe_dagster.schemas.catalog_types.catalog_type import CatalogType
from floe_dagster.schemas.catalog_types.polaris import POLARIS, PolarisCatalog
from floe_dagster.schemas.catalog_types.rest import REST, RestCatalog
from floe_dagster.schemas.catalog_types.sql import SQL, SqlCatalog
from floe_dagster.schemas.kinds import CATALOGS_GROUP, Kinds, OneOf, plugin_problem

CATALOG_TYPES: Kinds[CatalogType] = Kinds(CATALOGS_GROUP, CatalogType, (SQL, REST, POLARIS), plugin_problem)
"""By `plugins.catalog.type`; further ones of installed distributions, too."""
DEFAULT_CATALOG_TYPE = SQL.name
"""Where a manifest says nothing; also that of artifacts that are older than plugins."""

if TYPE_CHECKING:
    Catalog = SqlCatalog | RestCatalog | PolarisCatalog
else:
    Catalog = Annotated[Any, OneOf(CATALOG_TYPES)]


def shared_catalog_types() -> list[str]:
    """Return the types of catalogs that an engine outside of this process reaches, too, by name."""
    return sorted(name for name, kind in CATALOG_TYPES.items() if kind.is_shared)
