"""A relation in DuckDB, and how its columns are published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from floe_dagster.iceberg.errors import PublicationError
from floe_dagster.iceberg.schema_change import check_names
from floe_dagster.iceberg.types import ColumnType, UnsupportedTypeError, check_name, column_type, quoted

if TYPE_CHECKING:
    import duckdb
    from pyiceberg.schema import Schema

BOUNDED = {
    "DATE": ("0001-01-01", "9999-12-31"),
    "TIMESTAMP": ("0001-01-01", "9999-12-31 23:59:59.999999"),
    "TIMESTAMPTZ": ("0001-01-02 00:00:00+00", "9999-12-30 23:59:59.999999+00"),
}
"""What PyIceberg can express, by DuckDB type; infinity lies outside, too."""


@dataclass(frozen=True, slots=True)
class RelationName:
    """A table or view in DuckDB."""

    database: str
    schema: str
    identifier: str

    def sql(self) -> str:
        """Return the quoted name."""
        return ".".join(quoted(part) for part in (self.database, self.schema, self.identifier))

    def schema_sql(self) -> str:
        """Return the quoted name of its schema."""
        return f"{quoted(self.database)}.{quoted(self.schema)}"


def relation_columns(
    con: duckdb.DuckDBPyConnection, relation: RelationName, full_name: str
) -> list[tuple[str, ColumnType]]:
    """Return name and type of each column.

    Raises:
        PublicationError: A type has no Iceberg counterpart; all of them are named.
    """
    described = con.sql(f"select * from {relation.sql()} limit 0")
    columns = []
    problems = []
    for name, kind in zip(described.columns, described.types, strict=True):
        try:
            check_name(name)
            columns.append((name, column_type(kind)))
        except UnsupportedTypeError as error:
            problems.append(f"column {name!r}: {error}")
    if problems:
        raise PublicationError(f"{full_name} cannot be published. " + "; ".join(problems))
    return columns


def relation_schema(columns: list[tuple[str, ColumnType]], docs: Mapping[str, str], full_name: str) -> Schema:
    """Return the Iceberg schema of the columns, ids provisional.

    Args:
        columns: Names and types.
        docs: Descriptions by column.
        full_name: Of the table, for messages.

    Raises:
        PublicationError: Readers could not tell two columns apart.
    """
    from pyiceberg.schema import Schema
    from pyiceberg.types import NestedField

    fields = [
        NestedField(number, name, kind.iceberg, required=False, doc=docs.get(name) or None)
        for number, (name, kind) in enumerate(columns, 1)
    ]
    check_names(fields, full_name)
    return Schema(*fields)


def projection(relation: RelationName, columns: list[tuple[str, ColumnType]]) -> str:
    """Return SQL for the relation's rows as they are published: every value cast to its column's type."""
    entries = ", ".join(f"{_expression(name, kind)} as {quoted(name)}" for name, kind in columns)
    return f"select {entries} from {relation.sql()}"


def _expression(name: str, kind: ColumnType) -> str:
    return f"cast({quoted(name)} as {kind.sql})"


def check_bounds(
    con: duckdb.DuckDBPyConnection,
    relation: RelationName,
    columns: list[tuple[str, ColumnType]],
    full_name: str,
) -> None:
    """Refuse dates and times that PyIceberg cannot express.

    Smallest and largest value are looked at before anything is written: a check of every value while writing costs a
    tenth of the time.

    Raises:
        PublicationError: A value lies beyond the years 1 to 9999, or is infinite.
    """
    bounded = [(name, kind.sql) for name, kind in columns if kind.sql in BOUNDED]
    if not bounded:
        return
    conditions = []
    for name, kind in bounded:
        first, last = (f"{kind} '{bound}'" for bound in BOUNDED[kind])
        conditions.append(f"min({quoted(name)}) < {first} or max({quoted(name)}) > {last}")
    row = con.execute(f"select {', '.join(conditions)} from {relation.sql()}").fetchall()[0]
    for (name, kind), is_outside in zip(bounded, row, strict=True):
        if is_outside:
            raise PublicationError(
                f"{full_name}: a value does not fit its column: column {name!r} holds a {kind.lower()} beyond the years "
                "1 to 9999, or an infinite one"
            )
