"""Column lineage of a model, from its compiled SQL, by sqlglot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Relation = tuple[str, str, str]
"""Database, schema and name of a table or view."""
ColumnLineage = dict[str, list[tuple[Relation, str]]]
"""By column of the model: the relations and columns that it is computed from."""

COLUMN_LIMIT = 500
"""Beyond so many columns the time it takes is out of proportion; there is no lineage then."""


def column_lineage(
    sql: str,
    schemas: Mapping[Relation, Mapping[str, str]],
    columns: Iterable[str],
    *,
    dialect: str = "duckdb",
) -> ColumnLineage:
    """Return which columns of other relations each column of a query is computed from.

    Args:
        sql: One compiled query.
        schemas: The relations that it reads: type by column name.
        columns: Names of the query's result, as the engine gives them.
        dialect: sqlglot's name of the engine's SQL.

    Returns:
        An entry per column in `columns`, empty for a constant; no entry at all where sqlglot cannot read
        the query: lineage is an extra that fails no run.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError
    from sqlglot.lineage import Node, lineage

    wanted = {column.lower(): column for column in columns}
    if len(wanted) > COLUMN_LIMIT:
        return {}
    known = {
        tuple(part.lower() for part in relation): (relation, {name.lower(): name for name in types})
        for relation, types in schemas.items()
    }
    nested: dict[str, dict[str, dict[str, dict[str, str]]]] = {}
    for (database, schema, name), types in schemas.items():
        nested.setdefault(database, {}).setdefault(schema, {})[name] = dict(types)

    def leaves(node: Node) -> Iterable[tuple[Relation, str]]:
        for leaf in node.walk():
            table = leaf.expression.find(exp.Table) if not leaf.downstream else None
            if table is None:
                continue
            found = known.get((table.catalog.lower(), table.db.lower(), table.name.lower()))
            column = exp.to_column(leaf.name, dialect=dialect).name.lower()
            if found and column in found[1]:
                yield found[0], found[1][column]

    try:
        query = sqlglot.parse_one(sql, dialect=dialect)
        nodes = lineage(None, query, nested, dialect=dialect, copy=False)
        # Sorted, so that the same model gives the same bytes.
        result = {
            wanted[name.lower()]: sorted(set(leaves(node)))
            for name, node in nodes.items()
            if name.lower() in wanted
        }
    except (SqlglotError, RecursionError, ValueError, KeyError, AttributeError, TypeError):
        return {}
    return {column: result.get(column, []) for column in wanted.values()}
