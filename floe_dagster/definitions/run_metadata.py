"""What a materialization shows: rows, schema, column lineage, snapshot; and what a check shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dagster as dg

from floe_dagster.definitions.asset_specs import asset_key
from floe_dagster.iceberg.publication import PublicationResult
from floe_dagster.observability.column_lineage import Relation, column_lineage

COUNTED = frozenset({"seed", "table", "incremental", "snapshot"})


RelationColumns = dict[tuple[str, str], dict[str, str]]
"""Type by column, by schema and name of a relation in lower case."""


class RelationMetadata:
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
        count: Callable[[Mapping[str, Any]], int | None],
        assets: Mapping[str, Mapping[str, Any]],
        slug: str,
        dialect: str,
    ) -> None:
        self.columns = columns
        self.count = count
        self.assets = assets
        self.slug = slug
        self.dialect = dialect

    def describe(self, asset: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
        """Return the metadata of one relation, published or not.

        Args:
            asset: As in the asset index.
            result: dbt's result of building it.
        """
        described = {column["name"].lower(): column for column in asset["columns"]}
        columns = self._columns_of(asset)
        metadata: dict[str, Any] = {
            "dagster/table_name": ".".join(asset["relation"]),
            "dagster/column_schema": dg.TableSchema(
                columns=[
                    dg.TableColumn(name=name, type=kind, description=_description(described, name))
                    for name, kind in columns.items()
                ]
            ),
            "dbt/seconds": result.get("execution_time"),
        }
        if asset["materialized"] in COUNTED and (rows := self.count(asset)) is not None:
            metadata["dagster/row_count"] = rows
        lineage = self._lineage(asset, columns, result.get("compiled_code"))
        if lineage is not None:
            metadata["dagster/column_lineage"] = lineage
        return metadata

    def _columns_of(self, asset: Mapping[str, Any]) -> dict[str, str]:
        return next((columns for _relation, columns in self._relations_of(asset)), {})

    def _relations_of(self, asset: Mapping[str, Any]) -> Iterator[tuple[Relation, dict[str, str]]]:
        """Yield where an asset stands, each with its columns: as dbt builds it, and as it is published."""
        database, schema, name = asset["relation"]
        for relation in ((database, schema, name), (database, self.slug, asset["name"])):
            found = self.columns.get((relation[1].lower(), relation[2].lower()))
            if found is not None:
                yield relation, found

    def _lineage(
        self, asset: Mapping[str, Any], columns: Mapping[str, str], sql: str | None
    ) -> dg.TableColumnLineage | None:
        if not sql or not asset["deps"]:
            return None
        schemas: dict[Relation, Mapping[str, str]] = {}
        names: dict[Relation, str] = {}
        for upstream in (self.assets[key] for key in asset["deps"]):
            for relation, types in self._relations_of(upstream):
                schemas[relation] = types
                names[relation] = upstream["name"]
        found = column_lineage(sql, schemas, columns, dialect=self.dialect)
        if not found:
            return None
        return dg.TableColumnLineage(
            deps_by_column={
                column: [dg.TableColumnDep(asset_key(self.slug, names[up]), name) for up, name in sources]
                for column, sources in found.items()
            }
        )


def publication_metadata(result: PublicationResult, asset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a published table, under the names that Dagster's UI knows."""
    described = {column["name"].lower(): column for column in asset["columns"]}
    return {
        "dagster/row_count": result.rows,
        "dagster/table_name": result.table,
        "dagster/uri": result.location,
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(name=name, type=kind, description=_description(described, name))
                for name, kind in result.columns
            ]
        ),
        "iceberg/snapshot_id": str(result.snapshot_id),
        "iceberg/bytes": result.bytes,
        "iceberg/files": result.files,
        "iceberg/schema_changes": ", ".join(result.evolved) or "none",
        "iceberg/write_mode": result.mode,
        "iceberg/bytes_written": result.written_bytes,
        "iceberg/rows_inserted": result.inserted,
        **({"iceberg/rows_deleted": result.deleted} if result.deleted is not None else {}),
        "iceberg/commit_attempts": result.attempts,
        "publication/seconds": round(result.seconds, 3),
    }


def carried_over_metadata(table: Any, name: str, snapshot_id: int) -> dict[str, Any]:
    """Return the metadata of a table that an earlier attempt of the run has published.

    Args:
        table: The Iceberg table.
        name: With its namespace.
        snapshot_id: Which one the earlier attempt has committed.
    """
    snapshot = table.snapshot_by_id(snapshot_id)
    rows = (snapshot.summary or {}).get("total-records") if snapshot else None
    return {
        "dagster/table_name": name,
        "dagster/uri": table.location(),
        "iceberg/snapshot_id": str(snapshot_id),
        **({"dagster/row_count": int(rows)} if rows is not None else {}),
    }


def check_result(
    spec: dg.AssetCheckSpec, check: Mapping[str, Any], result: Mapping[str, Any]
) -> dg.AssetCheckResult:
    """Return what a test found.

    Args:
        spec: Of the check.
        check: As in the asset index.
        result: dbt's result of the test.
    """
    metadata: dict[str, Any] = {"status": result["status"], "file": check["file"] or ""}
    if result.get("failures") is not None:
        metadata["failed_rows"] = result["failures"]
    if result.get("message"):
        metadata["message"] = str(result["message"])
    if result["status"] != "pass" and result.get("compiled_code"):
        metadata["query"] = dg.MetadataValue.md(f"```sql\n{result['compiled_code'].strip()}\n```")
    severity = dg.AssetCheckSeverity.WARN if result["status"] == "warn" else dg.AssetCheckSeverity.ERROR
    return dg.AssetCheckResult(
        passed=result["status"] == "pass",
        asset_key=spec.asset_key,
        check_name=spec.name,
        severity=severity,
        metadata=metadata,
    )


def _description(described: Mapping[str, Mapping[str, Any]], name: str) -> str | None:
    return (described.get(name.lower()) or {}).get("description") or None
