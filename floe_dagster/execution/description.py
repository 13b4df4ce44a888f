"""What stands where dbt has built it: columns, rows, column lineage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from floe_dagster.execution.results import RelationDescription
from floe_dagster.observability.column_lineage import column_lineage
from floe_dagster.schemas.product_index import Asset, Relation

COUNTED = frozenset({"seed", "table", "incremental", "snapshot"})


RelationColumns = dict[tuple[str, str], dict[str, str]]
"""Type by column, by schema and name of a relation in lower case."""


class Relations:
    """Describes relations that dbt has built, published or not.

    Args:
        columns: Of every relation that stands.
        count: Gives the number of rows of an asset's relation; None where its publication does.
        assets: The product's assets, by unique id.
        slug: The product's slug, which is the schema of what is published.
        dialect: sqlglot's name of the engine's SQL.
    """

    def __init__(
        self,
        columns: RelationColumns,
        count: Callable[[Asset], int | None],
        assets: Mapping[str, Asset],
        slug: str,
        dialect: str,
    ) -> None:
        self.columns = columns
        self.count = count
        self.assets = assets
        self.slug = slug
        self.dialect = dialect

    def describe(self, asset: Asset, result: Mapping[str, Any]) -> RelationDescription:
        """Describe one relation, published or not.

        Args:
            asset: Of the index.
            result: dbt's result of building it.
        """
        columns = self.columns_of(asset)
        return RelationDescription(
            name=asset.full_relation,
            columns=tuple(columns.items()),
            seconds=result.get("execution_time"),
            rows=self.count(asset) if asset.materialized in COUNTED else None,
            lineage=self._lineage(asset, columns, result.get("compiled_code")),
        )

    def columns_of(self, asset: Asset) -> dict[str, str]:
        """Return the type of each column of what dbt has built, by name; nothing where the engine does not say.

        Args:
            asset: Of the index.
        """
        return next((columns for _relation, columns in self._relations_of(asset)), {})

    def _relations_of(self, asset: Asset) -> Iterator[tuple[Relation, dict[str, str]]]:
        """Yield where an asset stands, each with its columns: as dbt builds it, and as it is published."""
        database, schema, name = asset.relation
        for relation in ((database, schema, name), (database, self.slug, asset.name)):
            found = self.columns.get((relation[1].lower(), relation[2].lower()))
            if found is not None:
                yield relation, found

    def _lineage(
        self, asset: Asset, columns: Mapping[str, str], sql: str | None
    ) -> dict[str, list[tuple[str, str]]] | None:
        if not sql or not asset.deps:
            return None
        schemas: dict[Relation, Mapping[str, str]] = {}
        names: dict[Relation, str] = {}
        for upstream in (self.assets[key] for key in asset.deps):
            for relation, types in self._relations_of(upstream):
                schemas[relation] = types
                names[relation] = upstream.name
        found = column_lineage(sql, schemas, columns, dialect=self.dialect)
        if not found:
            return None
        return {
            column: [(names[relation], source) for relation, source in sources]
            for column, sources in found.items()
        }
