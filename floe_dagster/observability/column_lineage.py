"""Column lineage of a model, from its compiled SQL, by sqlglot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from floe_dagster.schemas.product_index import Relation

ColumnLineage = dict[str, list[tuple[Relation, str]]]
"""By column of the model: the relations and columns that it is computed from."""

COLUMN_LIMIT = 500
"""Beyond so many columns the time it takes is out of proportion; there is no lineage then."""

DEPTH_LIMIT = 200
"""Deeper nesting overflows the stack of sqlglot's compiled parser, which ends the process, and takes hours."""
LENGTH_LIMIT = 500_000
"""Characters of a query."""


def column_lineage(
    sql: str,
    schemas: Mapping[Relation, Mapping[str, str]],
    columns: Iterable[str],
    *,
    dialect: str,
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
    if len(wanted) > COLUMN_LIMIT or len(sql) > LENGTH_LIMIT:
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
        if _depth(sqlglot.tokenize(sql, dialect=dialect)) > DEPTH_LIMIT:
            return {}
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


def _depth(tokens: Iterable[Any]) -> int:
    """Return how deep brackets, CASE and prefix operators are nested at most."""
    from sqlglot import TokenType

    opening = {TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE, TokenType.CASE}
    closing = {TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE, TokenType.END}
    prefixes = {TokenType.NOT, TokenType.DASH, TokenType.TILDE}
    deepest = depth = prefixed = 0
    for token in tokens:
        kind = token.token_type
        prefixed = prefixed + 1 if kind in prefixes else 0
        depth += (kind in opening) - (kind in closing)
        depth = max(depth, 0)
        deepest = max(deepest, depth, prefixed)
    return deepest
