"""What a run asks of Trino besides dbt: which relations stand, and the statements of a publication."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from floe_dagster.engines.trino.access import TrinoAccess
from floe_dagster.iceberg.types import quoted

Relation = Sequence[str]
"""Catalog, schema and name."""


class TrinoWarehouse:
    """One Trino catalog, asked by one run.

    Args:
        access: The way to Trino.
        catalog: Trino's name of it.
        client_tag: All statements bear it.
    """

    def __init__(self, access: TrinoAccess, catalog: str, client_tag: str) -> None:
        self._access = access
        self._catalog = catalog
        self._tag = client_tag

    def execute(self, sql: str) -> list[list[Any]]:
        """Run one statement to its end and return its rows.

        Raises:
            EngineError: Nobody answers, or refuses who asks.
            trino.exceptions.TrinoQueryError: Trino says what is wrong with the statement.
        """
        connection = self._access.connect(client_tags=[self._tag])
        try:
            cursor = connection.cursor()
            cursor.execute(sql)
            return [list(row) for row in cursor.fetchall()]
        except Exception as error:
            raise self._access.error(error) from error
        finally:
            connection.close()

    def kinds(self, schemas: Iterable[str]) -> dict[tuple[str, str], str]:
        """Return what stands in some schemas: `table` or `view` by schema and name.

        Args:
            schemas: Names; one that does not exist holds nothing.
        """
        rows = self.execute(
            f"select table_schema, table_name, table_type from {quoted(self._catalog)}.information_schema.tables "
            f"where table_schema in ({_literals(schemas)})"
        )
        return {
            (str(schema), str(name)): "view" if kind == "VIEW" else "table" for schema, name, kind in rows
        }

    def columns(self, schemas: Iterable[str]) -> dict[tuple[str, str], dict[str, str]]:
        """Return type by column of all that stands in some schemas, by schema and name."""
        rows = self.execute(
            f"select table_schema, table_name, column_name, data_type from {quoted(self._catalog)}"
            f".information_schema.columns where table_schema in ({_literals(schemas)}) "
            "order by table_schema, table_name, ordinal_position"
        )
        found: dict[tuple[str, str], dict[str, str]] = {}
        for schema, name, column, kind in rows:
            found.setdefault((str(schema), str(name)), {})[str(column)] = str(kind)
        return found

    def columns_of(self, relation: Relation) -> dict[str, str]:
        """Return type by column of one relation."""
        return {str(row[0]): str(row[1]) for row in self.execute(f"show columns from {rendered(relation)}")}

    def table_property(self, table: Relation, name: str) -> str | None:
        """Return a property of an Iceberg table; None where Trino does not see the table, or it has none of that name."""
        from trino.exceptions import TrinoQueryError

        *schema, identifier = table
        try:
            rows = self.execute(
                f"select value from {rendered((*schema, f'{identifier}$properties'))} where key = {_literals([name])}"
            )
        except TrinoQueryError as error:
            if error.error_name in ("TABLE_NOT_FOUND", "SCHEMA_NOT_FOUND"):
                return None
            raise
        return str(rows[0][0]) if rows else None

    def any_row(self, relation: Relation, condition: str) -> bool:
        """Tell whether a relation has a row.

        Args:
            relation: Is read.
            condition: What follows `from`.
        """
        return bool(self.execute(f"select 1 from {rendered(relation)} {condition} limit 1"))

    def widen(self, source: Relation, target: Relation) -> list[str]:
        """Give a table the columns of a relation that it does not have; return those of the relation."""
        columns, known = self.columns_of(source), self.columns_of(target)
        for name, kind in columns.items():
            if name not in known:
                self.execute(f"alter table {rendered(target)} add column {quoted(name)} {kind}")
        return list(columns)

    def count(self, relation: Relation) -> int:
        """Return the number of rows."""
        return int(self.execute(f"select count(*) from {rendered(relation)}")[0][0])

    def drop(self, relation: Relation, kind: str) -> None:
        """Drop a view, or a table with its files: never a clone, whose files are another table's, too."""
        self.execute(f"drop {kind} if exists {rendered(relation)}")

    def copy(self, source: Relation, target: Relation, properties: Mapping[str, str]) -> None:
        """Make a table's content that of another relation; the table is made where it is missing.

        Args:
            source: Is read.
            target: Is written.
            properties: Trino's table properties, as they stand in SQL.
        """
        listed = ", ".join(f"{name} = {value}" for name, value in properties.items())
        self.execute(
            f"create or replace table {rendered(target)} {f'with ({listed}) ' if listed else ''}"
            f"as select * from {rendered(source)}"
        )

    def append(self, source: Relation, target: Relation, columns: Sequence[str]) -> None:
        """Add the rows of a relation to a table, column by name."""
        names = ", ".join(quoted(name) for name in columns)
        self.execute(f"insert into {rendered(target)} ({names}) select {names} from {rendered(source)}")

    def upsert(self, source: Relation, target: Relation, columns: Sequence[str], key: Sequence[str]) -> None:
        """Put the rows of a relation in the place of those with the same key that differ; others are added."""
        same = " and ".join(f"t.{quoted(name)} = s.{quoted(name)}" for name in key)
        names = ", ".join(quoted(name) for name in columns)
        values = ", ".join(f"s.{quoted(name)}" for name in columns)
        others = [name for name in columns if name.lower() not in {part.lower() for part in key}]
        changed = ", ".join(f"{quoted(name)} = s.{quoted(name)}" for name in others)
        differs = " or ".join(f"t.{quoted(name)} is distinct from s.{quoted(name)}" for name in others)
        update = f"when matched and ({differs}) then update set {changed} " if others else ""
        self.execute(
            f"merge into {rendered(target)} t using {rendered(source)} s on {same} {update}"
            f"when not matched then insert ({names}) values ({values})"
        )


def rendered(relation: Relation) -> str:
    """Return a relation as it stands in SQL."""
    return ".".join(quoted(part) for part in relation)


def _literals(values: Iterable[str]) -> str:
    return ", ".join("'" + value.replace("'", "''") + "'" for value in sorted(set(values)))
