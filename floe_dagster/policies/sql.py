"""What SQL says by itself, before it is run: whether a condition holds for no row, whether a query has no rows, what it reads.

SQL of a dbt project is a Jinja template, so what stands in braces is taken for a name. A guess that fails says nothing:
each function answers for sure or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlglot import exp

JINJA_NAME = "jinja__"
"""Begins the name that stands for what a template puts in."""

_JINJA_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_JINJA = re.compile(r"\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)
_CONFIG = re.compile(r"\{\{-?\s*config\s*\(")
_TEXT_OR_COMMENT = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_REF = re.compile(r"\b(?:ref|source)\s*\(([^()]*)\)")
_STRING = re.compile(r"['\"]([^'\"]+)['\"]")
_SAME_SIDES_NEVER = ("NEQ", "GT", "LT")


def without_comments(raw: str) -> str:
    """Return a template without its comments, those of Jinja and those of SQL; lines keep their numbers.

    Args:
        raw: As it stands in the project.
    """
    raw = _JINJA_COMMENT.sub(_as_lines, raw)
    return _TEXT_OR_COMMENT.sub(
        lambda found: _as_lines(found) if found[0].startswith(("--", "/*")) else found[0], raw
    )


def plain_sql(raw: str) -> str:
    """Return a template as SQL that can be parsed where the template is simple.

    Args:
        raw: As it stands in the project.
    """
    numbers = iter(range(1_000_000))

    def stand_in(found: re.Match[str]) -> str:
        lines = "\n" * found[0].count("\n")
        puts_in_nothing = found[0].startswith("{%") or _CONFIG.match(found[0])
        return lines if puts_in_nothing else f"{JINJA_NAME}{next(numbers)}{lines}"

    return _JINJA.sub(stand_in, without_comments(raw))


def names_read(raw: str) -> set[str]:
    """Return the names that `ref` and `source` are called with outside of comments: of a source, that of its table.

    Args:
        raw: As it stands in the project.
    """
    found = set()
    for call in _REF.finditer(without_comments(raw)):
        # Versions and packages are further arguments; a version is no name.
        texts = _STRING.findall(call[1].partition("v=")[0].partition("version=")[0])
        found |= {texts[-1]} if texts else set()
    return found


def never_holds(condition: str, dialect: str | None) -> bool:
    """Tell whether a condition surely holds for no row.

    Args:
        condition: As it would stand after `where`.
        dialect: sqlglot's name of the engine's SQL.
    """
    parsed = _parsed(f"select 1 where {plain_sql(condition)}", dialect)
    where = parsed.args.get("where") if parsed is not None else None
    return where is not None and _is_false(where.this)


def holds_for(number: int, condition: str, dialect: str | None) -> bool | None:
    """Tell whether a condition such as `> 10` holds for a number; None where that cannot be told.

    Args:
        number: What stands before the condition.
        condition: What dbt writes behind the number of failures.
        dialect: sqlglot's name of the engine's SQL.
    """
    from sqlglot import exp

    parsed = _parsed(f"select {number} {condition}", dialect)
    if parsed is None or len(parsed.expressions) != 1:
        return None
    if _is_false(parsed.expressions[0].unalias()):
        return False
    simple = _simple(parsed.expressions[0].unalias())
    return True if isinstance(simple, exp.Boolean) else None


def has_no_rows(raw: str, dialect: str | None) -> bool:
    """Tell whether a query surely gives no rows, whatever the tables hold.

    Args:
        raw: Of a singular test, or the body of a generic one.
        dialect: sqlglot's name of the engine's SQL.
    """
    sql = plain_sql(raw).strip().rstrip(";").strip()
    if not sql:
        return True
    parsed = _parsed(sql, dialect)
    return parsed is not None and _is_empty(parsed, {})


def relations_read(raw: str, dialect: str | None) -> list[tuple[tuple[str, ...], int]]:
    """Return the relations that a query names itself, each with its parts and its line, in the order of the text.

    What `ref` and `source` put in, and what the query defines itself, is left out. Where the query cannot be parsed, as with
    the branches of an `if`, what stands after `from` and `join` is taken.

    Args:
        raw: As it stands in the project, or as dbt compiled it.
        dialect: sqlglot's name of the engine's SQL.
    """
    sql = plain_sql(raw)
    found = _relations_of_tree(sql, dialect)
    if found is None:
        found = [*_relations_of_tokens(sql, dialect)]
    lowered = sql.lower()
    return [
        (parts, lowered.count("\n", 0, max(lowered.find(parts[-1].lower()), 0)) + 1)
        for parts in dict.fromkeys(found)
        if not any(JINJA_NAME in part for part in parts)
    ]


def _relations_of_tree(sql: str, dialect: str | None) -> list[tuple[str, ...]] | None:
    from sqlglot import exp
    from sqlglot.errors import SqlglotError
    from sqlglot.optimizer.scope import traverse_scope

    parsed = _parsed(sql, dialect)
    if parsed is None:
        return None
    for cte in parsed.find_all(exp.CTE):
        if not isinstance(cte.this, exp.Query):
            # A template puts the query in; what it reads is not to be seen, and its name is one of the query's own.
            cte.set("this", exp.select("*").from_(JINJA_NAME))
    try:
        tables = [
            source
            for scope in traverse_scope(parsed)
            for source in scope.sources.values()
            if isinstance(source, exp.Table)
        ]
    except (SqlglotError, RecursionError):
        return None
    # Functions that give rows are no relations.
    return [
        tuple(part.name for part in table.parts) for table in tables if isinstance(table.this, exp.Identifier)
    ]


def _relations_of_tokens(sql: str, dialect: str | None) -> Iterator[tuple[str, ...]]:
    from sqlglot import tokenize
    from sqlglot.errors import SqlglotError

    try:
        tokens = [(token.token_type.name, token.text) for token in tokenize(sql, read=dialect)]
    except SqlglotError:
        return
    names = {"VAR", "IDENTIFIER"}
    defined = {
        text.lower()
        for (kind, text), (after, _text) in pairwise(tokens)
        if kind in names and after == "ALIAS"
    }
    for position, (kind, _text) in enumerate(tokens):
        if kind not in ("FROM", "JOIN"):
            continue
        parts, at = [], position + 1
        while at < len(tokens) and tokens[at][0] in names:
            parts.append(tokens[at][1])
            at += 1
            if at >= len(tokens) or tokens[at][0] != "DOT":
                break
            at += 1
        is_call = at < len(tokens) and tokens[at][0] == "L_PAREN"
        if parts and not is_call and not (len(parts) == 1 and parts[0].lower() in defined):
            yield tuple(parts)


def _is_empty(query: exp.Expr, defined: dict[str, exp.Expr]) -> bool:
    from sqlglot import exp

    if (with_ := query.args.get("with_") or query.args.get("with")) is not None:
        for cte in with_.expressions:
            defined = {**defined, cte.alias.lower(): cte.this}
    limit = query.args.get("limit")
    if limit is not None and isinstance(limit.expression, exp.Literal) and limit.expression.name == "0":
        return True
    if isinstance(query, exp.Subquery):
        return _is_empty(query.this, defined)
    if isinstance(query, exp.Union):
        return _is_empty(query.left, defined) and _is_empty(query.right, defined)
    if isinstance(query, exp.Intersect):
        return _is_empty(query.left, defined) or _is_empty(query.right, defined)
    if isinstance(query, exp.Except):
        return _is_empty(query.left, defined)
    if not isinstance(query, exp.Select):
        return False
    for clause in ("having", "qualify"):
        if (found := query.args.get(clause)) is not None and _is_false(found.this):
            return True
    counts = any(each.find(exp.AggFunc) for each in query.expressions) and not query.args.get("group")
    if counts:
        # It gives one row of nothing.
        return False
    where = query.args.get("where")
    if where is not None and _is_false(where.this):
        return True
    from_ = query.args.get("from_") or query.args.get("from")
    return from_ is not None and _source_is_empty(from_.this, defined)


def _source_is_empty(source: exp.Expr, defined: dict[str, exp.Expr]) -> bool:
    from sqlglot import exp

    if isinstance(source, exp.Subquery):
        return _is_empty(source.this, defined)
    if isinstance(source, exp.Table) and not source.args.get("db"):
        name = source.name.lower()
        body = defined.get(name)
        # Without itself, so that a recursive one ends.
        return body is not None and _is_empty(body, {k: v for k, v in defined.items() if k != name})
    return False


def _is_false(condition: exp.Expr) -> bool:
    from sqlglot import exp

    simple = _simple(condition)
    if isinstance(simple, exp.Boolean):
        return not simple.this
    if isinstance(simple, exp.Null):
        return True
    if isinstance(simple, exp.Literal):
        return simple.name.lower() in ("0", "false", "f")
    if isinstance(simple, exp.Paren):
        return _is_false(simple.this)
    if isinstance(simple, exp.And):
        parts = [*simple.flatten()]
        texts = {part.sql() for part in parts}
        denied = {part.this.unnest().sql() for part in parts if isinstance(part, exp.Not)}
        return any(_is_false(part) for part in parts) or not texts.isdisjoint(denied) or _contradict(parts)
    if isinstance(simple, exp.Or):
        return all(_is_false(part) for part in simple.flatten())
    if isinstance(simple, exp.Exists):
        return isinstance(simple.this, exp.Query) and _is_empty(simple.this, {})
    if isinstance(simple, exp.Between):
        low, high = simple.args["low"], simple.args["high"]
        return bool(low.is_number and high.is_number and float(low.name) > float(high.name))
    if isinstance(simple, exp.In):
        query = simple.args.get("query")
        if query is not None:
            return _is_empty(query.unnest(), {})
        return not simple.expressions and simple.args.get("unnest") is None and not simple.args.get("field")
    if type(simple).__name__.upper() in _SAME_SIDES_NEVER:
        return bool(simple.this.sql() == simple.expression.sql())
    return False


def _contradict(parts: list[exp.Expr]) -> bool:
    """Whether conditions ask for two values of one column, for null and a value, or for more than they allow."""
    from sqlglot import exp

    wanted: dict[str, set[str]] = {}
    least: dict[str, float] = {}
    most: dict[str, float] = {}
    for part in parts:
        if isinstance(part, exp.GT | exp.GTE | exp.LT | exp.LTE) and part.expression.is_number:
            side, number = part.this.sql(), float(part.expression.to_py())
            if isinstance(part, exp.GT | exp.GTE):
                least[side] = max(number, least.get(side, number))
            else:
                most[side] = min(number, most.get(side, number))
        if isinstance(part, exp.EQ) and isinstance(part.expression, exp.Literal):
            wanted.setdefault(part.this.sql(), set()).add(part.expression.sql())
        elif isinstance(part, exp.Is) and isinstance(part.expression, exp.Null):
            wanted.setdefault(part.this.sql(), set()).add("null")
    too_narrow = any(least[side] > most[side] for side in least.keys() & most.keys())
    return too_narrow or any(len(values) > 1 for values in wanted.values())


def _simple(condition: exp.Expr) -> exp.Expr:
    from sqlglot.optimizer.simplify import simplify

    try:
        simple: exp.Expr = simplify(condition.copy())
    except Exception:  # what its rules do not know stays as it is written
        return condition
    return simple


def _parsed(sql: str, dialect: str | None) -> exp.Expr | None:
    from sqlglot import ErrorLevel, parse_one
    from sqlglot.errors import SqlglotError

    try:
        parsed: Any = parse_one(sql, read=dialect, error_level=ErrorLevel.RAISE)
    except (SqlglotError, RecursionError):
        return None
    return parsed  # type: ignore[no-any-return]


def _as_lines(found: re.Match[str]) -> str:
    return "\n" * found[0].count("\n") or " "
