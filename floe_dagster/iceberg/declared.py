"""Types that a product declares for its columns, against those of its published tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from floe_dagster.iceberg.errors import PublicationError, catalog_error
from floe_dagster.iceberg.schema_change import check_evolution
from floe_dagster.schemas.compute import ENGINES
from floe_dagster.schemas.compute.engine import Engine
from floe_dagster.schemas.product_index import Asset

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.schema import Schema
    from pyiceberg.types import IcebergType, NestedField

_NAMES = {
    "BOOLEAN": "boolean",
    "TINYINT": "int",
    "SMALLINT": "int",
    "INT": "int",
    "UTINYINT": "int",
    "USMALLINT": "int",
    "BIGINT": "long",
    "UINT": "long",
    "UBIGINT": "decimal(20, 0)",
    "INT128": "decimal(38, 0)",
    "UINT128": "decimal(38, 0)",
    "FLOAT": "float",
    "DOUBLE": "double",
    "VARCHAR": "string",
    "TEXT": "string",
    "CHAR": "string",
    "VARBINARY": "binary",
    "BINARY": "binary",
    "DATE": "date",
    "TIME": "time",
    "TIMESTAMP": "timestamp",
    "TIMESTAMPNTZ": "timestamp",
    "TIMESTAMPTZ": "timestamptz",
}


@dataclass(frozen=True, slots=True)
class TypeDifference:
    """A column that is published with one type and declared with another, between which Iceberg cannot change.

    Args:
        table: Its table.
        column: Its name.
        published: Type in the table's schema.
        declared: As the product writes it.
    """

    table: str
    column: str
    published: str
    declared: str


def type_differences(catalog: Catalog, namespace: str, assets: Iterable[Asset]) -> list[TypeDifference]:
    """Return the columns whose declared type the published table cannot take.

    Args:
        catalog: From `open_catalog`.
        namespace: Of the product.
        assets: Of the index; those that are not published, and columns without a type, are left out.

    Raises:
        CatalogError: The catalog does not answer or refuses.
    """
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    found: list[TypeDifference] = []
    for asset in assets:
        declared = {column.name: column.type for column in asset.columns if column.type}
        if not asset.published or not declared:
            continue
        try:
            schema = catalog.load_table(asset.identifier(namespace)).schema()
        except (NoSuchTableError, NoSuchNamespaceError):
            continue
        except Exception as error:
            raise catalog_error(error, f"{namespace}.{asset.name} cannot be read") from error
        found += _differences(asset.name, schema, declared, ENGINES[asset.engine])
    return found


def declared_type(declared: str, engine: Engine) -> IcebergType | None:
    """Return what a declared type is published as; None where it is nested, unknown or none that Iceberg has."""
    from pydantic import TypeAdapter
    from pyiceberg.types import IcebergType
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        parsed = exp.DataType.build(declared, dialect=engine.dialect)
    except SqlglotError:
        return None
    kind = str(getattr(parsed.this, "value", ""))
    name = engine.iceberg_types.get(kind) or _NAMES.get(kind)
    if kind == "DECIMAL":
        sizes = [int(each.name) for each in parsed.expressions if each.name.isdigit()]
        # Each engine has a default of its own where there is no size.
        name = f"decimal({sizes[0]}, {sizes[1] if len(sizes) > 1 else 0})" if sizes else None
    return TypeAdapter(IcebergType).validate_python(name) if name else None


def _differences(
    table: str, schema: Schema, declared: Mapping[str, str], engine: Engine
) -> list[TypeDifference]:
    found = []
    # Trino knows columns in lower case alone.
    columns = {field.name.lower(): field for field in schema.fields}
    for name, text in declared.items():
        field, wanted = columns.get(name.lower()), declared_type(text, engine)
        if field is not None and wanted is not None and not _can_become(table, field, wanted):
            found.append(TypeDifference(table, field.name, str(field.field_type), text))
    return found


def _can_become(table: str, field: NestedField, wanted: IcebergType) -> bool:
    from pyiceberg.schema import Schema
    from pyiceberg.types import NestedField

    then = Schema(NestedField(field.field_id, field.name, wanted, required=False))
    try:
        check_evolution(Schema(field), then, table)
    except PublicationError:
        return False
    return True
