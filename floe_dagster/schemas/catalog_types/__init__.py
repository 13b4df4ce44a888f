"""Types of Iceberg catalogs. Another type is one more module, and its line in `CATALOG_TYPES`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from floe_dagster.schemas.catalog_types.catalog_type import CatalogType
from floe_dagster.schemas.catalog_types.polaris import POLARIS, PolarisCatalog
from floe_dagster.schemas.catalog_types.rest import REST, RestCatalog
from floe_dagster.schemas.catalog_types.sql import SQL, SqlCatalog

CATALOG_TYPES: dict[str, CatalogType] = {kind.name: kind for kind in (SQL, REST, POLARIS)}
"""By `plugins.catalog.type`."""
DEFAULT_CATALOG_TYPE = SQL.name
"""Where a manifest says nothing; also that of artifacts that are older than plugins."""

if TYPE_CHECKING:
    Catalog = SqlCatalog | RestCatalog | PolarisCatalog
else:
    Catalog = Annotated[
        Union[tuple(kind.plugin for kind in CATALOG_TYPES.values())],  # noqa: UP007
        Field(discriminator="type"),
    ]


def shared_catalog_types() -> list[str]:
    """Return the types of catalogs that an engine outside of this process reaches, too, by name."""
    return sorted(name for name, kind in CATALOG_TYPES.items() if kind.is_shared)
