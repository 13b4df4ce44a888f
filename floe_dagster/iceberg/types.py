"""DuckDB types as Iceberg types.

| DuckDB | Iceberg |
|---|---|
| BOOLEAN | boolean |
| TINYINT, SMALLINT, INTEGER, UTINYINT, USMALLINT | int |
| BIGINT, UINTEGER | long |
| UBIGINT | decimal(20, 0) |
| HUGEINT, UHUGEINT | decimal(38, 0) |
| FLOAT, DOUBLE, DECIMAL | float, double, decimal |
| VARCHAR, ENUM, JSON, UUID | string |
| BLOB | binary |
| DATE, TIME | date, time |
| TIMESTAMP, TIMESTAMP_S, TIMESTAMP_MS | timestamp |
| TIMESTAMP WITH TIME ZONE | timestamptz |
| LIST, ARRAY, STRUCT, MAP | list, struct, map |

Everything else is refused by name: TIMESTAMP_NS, TIME WITH TIME ZONE, INTERVAL, BIT, UNION, BIGNUM.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
)

from floe_dagster.errors import FloeError

_PRIMITIVES: dict[str, tuple[str, IcebergType]] = {
    "boolean": ("BOOLEAN", BooleanType()),
    "tinyint": ("INTEGER", IntegerType()),
    "smallint": ("INTEGER", IntegerType()),
    "integer": ("INTEGER", IntegerType()),
    "utinyint": ("INTEGER", IntegerType()),
    "usmallint": ("INTEGER", IntegerType()),
    "bigint": ("BIGINT", LongType()),
    "uinteger": ("BIGINT", LongType()),
    "ubigint": ("DECIMAL(20,0)", DecimalType(20, 0)),
    "hugeint": ("DECIMAL(38,0)", DecimalType(38, 0)),
    "uhugeint": ("DECIMAL(38,0)", DecimalType(38, 0)),
    "float": ("FLOAT", FloatType()),
    "double": ("DOUBLE", DoubleType()),
    "varchar": ("VARCHAR", StringType()),
    "enum": ("VARCHAR", StringType()),
    "json": ("VARCHAR", StringType()),
    "uuid": ("VARCHAR", StringType()),
    "blob": ("BLOB", BinaryType()),
    "date": ("DATE", DateType()),
    "time": ("TIME", TimeType()),
    "timestamp": ("TIMESTAMP", TimestampType()),
    "timestamp_s": ("TIMESTAMP", TimestampType()),
    "timestamp_ms": ("TIMESTAMP", TimestampType()),
    "timestamp with time zone": ("TIMESTAMPTZ", TimestamptzType()),
}
_BY_ICEBERG = {type(iceberg): sql for sql, iceberg in reversed(_PRIMITIVES.values())}
_FIELD_ID = "__duckdb_field_id"
_ADVICE = {
    "timestamp_ns": "cast it to TIMESTAMP (microseconds)",
    "time with time zone": "cast it to TIME",
    "interval": "publish a number of seconds, for example extract(epoch from …)",
    "bit": "cast it to VARCHAR or BLOB",
    "union": "publish one column per member",
    "bignum": "cast it to DECIMAL(38,0)",
}


class UnsupportedTypeError(FloeError, ValueError):
    """A DuckDB type has no Iceberg counterpart."""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """One column's type on both sides.

    Args:
        sql: DuckDB type that is written to Parquet.
        iceberg: Iceberg type, with provisional ids inside.
    """

    sql: str
    iceberg: IcebergType


def column_type(duckdb_type: Any, ids: Iterator[int] | None = None) -> ColumnType:
    """Return how a DuckDB type is published.

    Args:
        duckdb_type: A `DuckDBPyType`.
        ids: Gives provisional ids to nested fields.

    Raises:
        UnsupportedTypeError: It has no Iceberg counterpart; the message says what to do.
    """
    ids = ids or count(1_000)
    kind = duckdb_type.id
    if kind in _PRIMITIVES:
        return ColumnType(*_PRIMITIVES[kind])
    if kind == "decimal":
        parameters = dict(duckdb_type.children)
        precision, scale = parameters["precision"], parameters["scale"]
        return ColumnType(f"DECIMAL({precision},{scale})", DecimalType(precision, scale))
    if kind in ("list", "array"):
        element_id = next(ids)
        inner = column_type(dict(duckdb_type.children)["child"], ids)
        return ColumnType(f"{inner.sql}[]", ListType(element_id, inner.iceberg, element_required=False))
    if kind == "map":
        parts = dict(duckdb_type.children)
        key_id, value_id = next(ids), next(ids)
        key, value = column_type(parts["key"], ids), column_type(parts["value"], ids)
        return ColumnType(
            f"MAP({key.sql}, {value.sql})",
            MapType(key_id, key.iceberg, value_id, value.iceberg, value_required=False),
        )
    if kind == "struct":
        fields, sql = [], []
        for name, child in duckdb_type.children:
            check_name(name)
            field_id = next(ids)
            inner = column_type(child, ids)
            fields.append(NestedField(field_id, name, inner.iceberg, required=False))
            sql.append(f"{quoted(name)} {inner.sql}")
        return ColumnType(f"STRUCT({', '.join(sql)})", StructType(*fields))
    advice = _ADVICE.get(kind, "cast it to a type that Iceberg has")
    raise UnsupportedTypeError(f"type {str(duckdb_type).upper()} has no Iceberg counterpart; {advice}")


def duckdb_type(iceberg: IcebergType) -> str:
    """Return the DuckDB type that holds the values of an Iceberg type which DuckDB or Trino has published."""
    if isinstance(iceberg, StructType):
        fields = ", ".join(
            f"{quoted(field.name)} {duckdb_type(field.field_type)}" for field in iceberg.fields
        )
        return f"STRUCT({fields})"
    if isinstance(iceberg, ListType):
        return f"{duckdb_type(iceberg.element_type)}[]"
    if isinstance(iceberg, MapType):
        return f"MAP({duckdb_type(iceberg.key_type)}, {duckdb_type(iceberg.value_type)})"
    if isinstance(iceberg, DecimalType):
        return f"DECIMAL({iceberg.precision},{iceberg.scale})"
    # DuckDB reads what has no counterpart there (uuid, fixed) as one of these, too.
    return _BY_ICEBERG.get(type(iceberg), "VARCHAR")


def check_name(name: str) -> None:
    """Refuse a name that the writer of Parquet files takes for something else.

    Raises:
        UnsupportedTypeError: With what to do.
    """
    if name == _FIELD_ID:
        raise UnsupportedTypeError(f"the name {name!r} is reserved; give it another name")


def field_ids(name: str, iceberg: IcebergType, field_id: int) -> str:
    """Return one entry of DuckDB's `FIELD_IDS`, nested fields included.

    Args:
        name: Of the column.
        iceberg: Its type in the table's schema.
        field_id: Its id in the table's schema.
    """
    inner = _inner_ids(iceberg)
    if not inner:
        return f"{quoted(name)}: {field_id}"
    return f"{quoted(name)}: {{{_FIELD_ID}: {field_id}, {inner}}}"


def _inner_ids(iceberg: IcebergType) -> str:
    if isinstance(iceberg, StructType):
        return ", ".join(field_ids(field.name, field.field_type, field.field_id) for field in iceberg.fields)
    if isinstance(iceberg, ListType):
        return field_ids("element", iceberg.element_type, iceberg.element_id)
    if isinstance(iceberg, MapType):
        key = field_ids("key", iceberg.key_type, iceberg.key_id)
        return f"{key}, {field_ids('value', iceberg.value_type, iceberg.value_id)}"
    return ""


def quoted(name: str) -> str:
    """Return an identifier in double quotes."""
    return '"' + name.replace('"', '""') + '"'
