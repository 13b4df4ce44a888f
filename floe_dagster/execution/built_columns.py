"""The columns that were built against those that the product describes, and the SQL that was run against what it declares to read.

YAML can leave a column out, and a template can become other SQL in a run than it looks like. Both show here, before anything
is published.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from floe_dagster.iceberg.declared import declared_type
from floe_dagster.policies.built_columns import BuiltColumns
from floe_dagster.policies.personal_data import PersonalNames, is_named_like_personal_data
from floe_dagster.policies.sql import relations_read
from floe_dagster.policies.words import says_something
from floe_dagster.schemas.compute import ENGINES
from floe_dagster.schemas.product_index import Asset, ColumnRules

STRICT, WARN, OFF = "strict", "warn", "off"
_WORD = re.compile(r"\w+")
_TEXT = ("CHAR", "TEXT", "STRING", "BLOB", "BINARY", "JSON")


@dataclass(frozen=True, slots=True)
class ColumnFinding:
    """One column that is not as the product describes it.

    Args:
        asset: Name of the model.
        message: What is wrong, and what to do.
        level: strict where its table is withheld, else warn.
    """

    asset: str
    message: str
    level: str


@dataclass(slots=True)
class ColumnReport:
    """What a run found of built columns.

    Args:
        looked_at: Names of the assets that were looked at.
        findings: In the order of the graph.
    """

    looked_at: list[str] = field(default_factory=list)
    findings: list[ColumnFinding] = field(default_factory=list)


def check_columns(
    asset: Asset, columns: Mapping[str, str], rules: ColumnRules, today: str | None = None
) -> list[ColumnFinding]:
    """Return which built columns are not as the product describes them.

    Args:
        asset: Of the index.
        columns: Type by name, as the engine has them; empty where it does not say.
        rules: In force for the product.
        today: The day by which exemptions end; the present one when None.
    """
    today = today or datetime.now(UTC).date().isoformat()
    if any(name in (asset.name, asset.file) and today <= until for name, until in rules.exempt):
        return []
    return [*_findings(asset, columns, rules)]


def _findings(asset: Asset, columns: Mapping[str, str], rules: ColumnRules) -> Iterator[ColumnFinding]:
    listed = {column.name.lower(): column for column in asset.columns}
    where = asset.described[0] if asset.described else "a YAML file"
    entries = PersonalNames(rules.personal_names).entries() if rules.personal_data != OFF else ()
    for name, built in columns.items():
        known = listed.get(name.lower())
        if rules.descriptions != OFF and not (known and says_something(known.description)):
            message = f"column {name!r} was built and is not described: describe it in {where}"
            yield ColumnFinding(asset.name, message, rules.descriptions)
        holds_text = any(kind in built.upper() for kind in _TEXT)
        is_classified = known is not None and known.classification
        if (
            entries
            and not is_classified
            and is_named_like_personal_data(name, entries, holds_text=holds_text)
        ):
            yield ColumnFinding(
                asset.name,
                f"column {name!r} was built, is named like personal data and has no classification: add "
                f"`config: {{meta: {{classification: …}}}}` to it in {where}",
                rules.personal_data,
            )
        if rules.types != OFF and known and known.type and _differ(asset, built, known.type):
            yield ColumnFinding(
                asset.name,
                f"column {name!r} was built as {built}, and {where} declares {known.type}: cast it, or correct data_type",
                rules.types,
            )
    if rules.types == OFF or not columns:
        return
    built_names = {name.lower() for name in columns}
    for name, known in listed.items():
        if known.type and name not in built_names:
            message = f"column {known.name!r} is declared as {known.type} in {where} and was not built"
            yield ColumnFinding(asset.name, message, rules.types)


class RelationNames:
    """Knows the relations of a product by the names that SQL has for them.

    Args:
        assets: All of the index, by unique id, as one engine knows them.
        dialect: sqlglot's name of the engine's SQL.
    """

    def __init__(self, assets: Mapping[str, Asset], dialect: str) -> None:
        self._by_place = {asset.place: asset for asset in assets.values()}
        self._by_name = {asset.place[1]: asset for asset in assets.values()}
        self._dialect = dialect

    def undeclared_reads(self, asset: Asset, sql: str | None) -> list[str]:
        """Return the names of what the SQL that was run reads of the product and the model does not declare.

        dbt has built it in any order, and a test of it that failed would not have withheld what reads it so.

        Args:
            asset: Of the index.
            sql: As dbt compiled it for the run; None where dbt does not say.
        """
        if not sql or asset.file.endswith(".py"):
            return []
        allowed = {asset.id, *asset.deps}
        words = {word for word in _WORD.findall(sql.lower()) if word in self._by_name}
        if all(self._by_name[word].id in allowed for word in words):
            # Most SQL need not be parsed.
            return []
        found = set()
        for parts, _line in relations_read(sql, self._dialect):
            name = parts[-1].lower()
            other = (
                self._by_place.get((parts[-2].lower(), name)) if len(parts) > 1 else self._by_name.get(name)
            )
            if other is not None and other.id not in allowed:
                found.add(other.name)
        return sorted(found)


def _differ(asset: Asset, built: str, declared: str) -> bool:
    engine = ENGINES[asset.engine]
    is_type, wanted = declared_type(built, engine), declared_type(declared, engine)
    # Of nested types and those that Iceberg has not, nothing is known.
    return is_type is not None and wanted is not None and is_type != wanted


POLICY = BuiltColumns.name
"""The policy whose check shows what is found here."""
