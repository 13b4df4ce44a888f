"""What comes of a run or of maintenance, in Dagster's words: materializations, check results, failures of a step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from floe_dagster.definitions.asset_specs import asset_key
from floe_dagster.execution.built_columns import POLICY, STRICT, ColumnReport
from floe_dagster.execution.errors import RunError, WithheldError
from floe_dagster.execution.results import Built, CarriedOver, Checked, Link, Published, RelationDescription
from floe_dagster.faults import fault_report, is_fault, presentable
from floe_dagster.iceberg.errors import CatalogError, NotUsableError, PublicationError
from floe_dagster.iceberg.publication import PublicationResult
from floe_dagster.schemas.product_index import Asset, Check

WITHHELD = "withheld"
"""Metadata of the failure of a step: why a table is not published, by name."""


@contextmanager
def as_failures(what: str) -> Iterator[None]:
    """Have a step fail for people: with words instead of a traceback, and tried again only where that may help.

    Args:
        what: What a fault of the program kept from going on, for example `the run of customer_360 could not go on`.

    Raises:
        dg.Failure: A run ended, a table or the catalog is not to be had, or the program is at fault.
        Exception: What nobody knows is raised as it is: Dagster tries again.
    """
    try:
        yield
    except RunError as error:
        metadata = (
            {WITHHELD: dg.MetadataValue.json(error.reasons)} if isinstance(error, WithheldError) else {}
        )
        # The failure says all that the error says; what caused it stands behind both.
        raise dg.Failure(str(error), metadata=metadata, allow_retries=error.transient) from error.__cause__
    except PublicationError as error:
        raise dg.Failure(str(error), allow_retries=error.transient) from error
    except CatalogError as error:
        # The message says all; a traceback of a library would hide it.
        raise dg.Failure(str(error), allow_retries=not isinstance(error, NotUsableError)) from error
    except Exception as error:
        if not is_fault(error):
            raise
        raise dg.Failure(fault_report(error, what), allow_retries=False) from presentable(error)


def materialization(
    built: Built | Published,
    asset: Asset,
    slug: str,
    links: Mapping[str, dg.MetadataValue],
) -> dg.MaterializeResult[Any]:
    """Return how Dagster records an asset that stands.

    Args:
        built: What the run yielded.
        asset: Of the index.
        slug: Of the product.
        links: Metadata that leads to what is told of it elsewhere.
    """
    metadata = _of_relation(built.description, asset, slug) if built.description else {}
    version = None
    if isinstance(built, Published):
        version = dg.DataVersion(str(built.publication.snapshot_id))
        metadata |= _of_publication(built.publication, asset)
    return dg.MaterializeResult(
        asset_key=asset_key(slug, asset.name), metadata={**metadata, **links}, data_version=version
    )


def _of_relation(description: RelationDescription, asset: Asset, slug: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "dagster/table_name": description.name,
        "dagster/column_schema": _schema(description.columns, asset),
        "dbt/seconds": description.seconds,
    }
    if description.rows is not None:
        metadata["dagster/row_count"] = description.rows
    if description.lineage is not None:
        metadata["dagster/column_lineage"] = dg.TableColumnLineage(
            deps_by_column={
                column: [dg.TableColumnDep(asset_key(slug, name), source) for name, source in sources]
                for column, sources in description.lineage.items()
            }
        )
    for name, fact in description.facts.items():
        metadata[name] = dg.MetadataValue.url(fact.url) if isinstance(fact, Link) else fact
    return metadata


def _of_publication(result: PublicationResult, asset: Asset) -> dict[str, Any]:
    """Return the metadata of a published table, under the names that Dagster's UI knows."""
    return {
        "dagster/row_count": result.rows,
        "dagster/table_name": result.table,
        "dagster/uri": result.location,
        "dagster/column_schema": _schema(result.columns, asset),
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


def _schema(columns: tuple[tuple[str, str], ...], asset: Asset) -> dg.TableSchema:
    described = {column.name.lower(): column.description or None for column in asset.columns}
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name=name, type=kind, description=described.get(name.lower()))
            for name, kind in columns
        ]
    )


def carried_over(result: CarriedOver, asset: Asset, slug: str) -> dg.MaterializeResult[Any]:
    """Return how Dagster records a table that an earlier attempt of the run has published.

    Args:
        result: What the run yielded.
        asset: Of the index.
        slug: Of the product.
    """
    return dg.MaterializeResult(
        asset_key=asset_key(slug, asset.name),
        data_version=dg.DataVersion(str(result.snapshot_id)),
        metadata={
            "dagster/table_name": result.table,
            "dagster/uri": result.location,
            "iceberg/snapshot_id": str(result.snapshot_id),
            **({"dagster/row_count": result.rows} if result.rows is not None else {}),
        },
    )


def report_columns(context: dg.AssetExecutionContext, slug: str, report: ColumnReport) -> None:
    """Have the check of the policy on built columns say what a run has found; it belongs to another step's asset.

    Args:
        context: Of the step.
        slug: Of the product.
        report: Of the run; where it looked at nothing, the check stays as it is.
    """
    if not report.looked_at:
        return
    withheld = any(finding.level == STRICT for finding in report.findings)
    rows = [
        "| model | level | what |",
        "|---|---|---|",
        *(f"| {each.asset} | {each.level} | {_cell(each.message)} |" for each in report.findings),
    ]
    context.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=asset_key(slug, "dbt_manifest"),
            check_name=POLICY,
            passed=not report.findings,
            severity=dg.AssetCheckSeverity.ERROR if withheld else dg.AssetCheckSeverity.WARN,
            metadata={
                "status": "failed" if withheld else "warned" if report.findings else "passed",
                "run": context.run.run_id,
                "looked_at": len(report.looked_at),
                "violations": len(report.findings),
                "findings": dg.MetadataValue.md("\n".join(rows)) if report.findings else "none",
            },
        )
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def check_result(checked: Checked, spec: dg.AssetCheckSpec, check: Check) -> dg.AssetCheckResult:
    """Return how Dagster records what a test found.

    Args:
        checked: What the run yielded.
        spec: Of the check.
        check: Of the index.
    """
    result = checked.dbt_result
    metadata: dict[str, Any] = {"status": result["status"], "file": check.file or ""}
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


def evaluation(result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    """Return a check's result as an event: for a check that is no output of the step.

    Args:
        result: See `check_result`.
    """
    assert result.asset_key is not None and result.check_name is not None
    return dg.AssetCheckEvaluation(
        asset_key=result.asset_key,
        check_name=result.check_name,
        passed=result.passed,
        severity=result.severity,
        metadata=dict(result.metadata or {}),
    )
