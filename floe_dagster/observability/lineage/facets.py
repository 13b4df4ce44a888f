"""OpenLineage facets out of what the product knows, through the classes of the OpenLineage client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openlineage.client import event_v2 as ol
from openlineage.client import facet_v2 as facet

from floe_dagster.observability.lineage.datasets import CatalogNames, DatasetName

PRODUCER = "https://github.com/floe-dev/floe-dagster"
_SQL_LIMIT = 100_000
_MESSAGE_LIMIT = 8_000


@dataclass(frozen=True, slots=True)
class Assertion:
    """One test or policy and its outcome.

    Args:
        name: Of the test or policy.
        kind: not_null, unique, …; custom_sql for a singular test, policy:<name> for a policy.
        success: Nothing was found.
        severity: error or warn.
        column: That it looks at.
        description: For people.
        actual: Number of rows or findings that fail.
    """

    name: str
    kind: str
    success: bool
    severity: str
    column: str | None = None
    description: str | None = None
    actual: str | None = None


@dataclass(frozen=True, slots=True)
class TableState:
    """What is known of a dataset after it was written.

    Args:
        columns: Name, type and description of each.
        lineage: By column: datasets and their columns.
        rows: That were written.
        bytes: That were written.
        files: That were written.
        snapshot: Iceberg's id of the snapshot.
        created: The table was made.
        kind: TABLE or VIEW.
    """

    columns: Sequence[tuple[str, str, str | None]] = ()
    lineage: Mapping[str, Sequence[tuple[DatasetName, str]]] | None = None
    rows: int | None = None
    bytes: int | None = None
    files: int | None = None
    snapshot: str | None = None
    created: bool = False
    kind: str = "TABLE"


def job_facets(
    *,
    integration: str,
    job_type: str,
    owners: Iterable[str] = (),
    tags: Mapping[str, str] | None = None,
    description: str | None = None,
    source: tuple[str, str | None, str] | None = None,
) -> dict[str, Any]:
    """Return the facets of a job that stay the same from its beginning to its end.

    Args:
        integration: DAGSTER or DBT.
        job_type: JOB, MODEL, SEED, SNAPSHOT, TEST.
        owners: Teams or addresses.
        tags: By key.
        description: For people.
        source: Address of the file, of the repository, and its path in it.
    """
    facets: dict[str, Any] = {
        "jobType": facet.job_type_job.JobTypeJobFacet(
            processingType="BATCH", integration=integration, jobType=job_type
        )
    }
    if owned := [facet.ownership_job.Owner(name=owner, type="OWNER") for owner in owners]:
        facets["ownership"] = facet.ownership_job.OwnershipJobFacet(owners=owned)
    if tags:
        facets["tags"] = facet.tags_job.TagsJobFacet(
            tags=[
                facet.tags_job.TagsJobFacetFields(key=key, value=value or "true", source="FLOE")
                for key, value in tags.items()
            ]
        )
    if description:
        facets["documentation"] = facet.documentation_job.DocumentationJobFacet(description=description)
    if source:
        url, repository, path = source
        facets["sourceCodeLocation"] = facet.source_code_location_job.SourceCodeLocationJobFacet(
            type="git", url=url, repoUrl=repository, path=path
        )
    return facets


def query_facets(sql: str | None, dialect: str) -> dict[str, Any]:
    """Return the facet of a job's query, where there is one.

    Args:
        sql: Compiled query.
        dialect: Of the query.
    """
    if not sql:
        return {}
    return {"sql": facet.sql_job.SQLJobFacet(query=sql[:_SQL_LIMIT], dialect=dialect)}


def run_facets(
    *,
    parent: tuple[str, str, str] | None,
    root: tuple[str, str, str] | None,
    nominal_time: str | None,
    tags: Mapping[str, str],
    engine: tuple[str, str],
) -> dict[str, Any]:
    """Return the facets of a run that stay the same as long as it runs.

    Args:
        parent: Run id, job namespace and job name of the run that this one is part of.
        root: The same of the run that everything began with.
        nominal_time: ISO 8601, when it was due.
        tags: Ids of the same run elsewhere.
        engine: Name and version.
    """
    name, version = engine
    facets: dict[str, Any] = {
        "processing_engine": facet.processing_engine_run.ProcessingEngineRunFacet(version=version, name=name),
        "tags": facet.tags_run.TagsRunFacet(
            tags=[
                facet.tags_run.TagsRunFacetFields(key=key, value=value, source="FLOE")
                for key, value in tags.items()
            ]
        ),
    }
    if parent:
        kinds = facet.parent_run
        facets["parent"] = kinds.ParentRunFacet(
            run=kinds.Run(runId=parent[0]),
            job=kinds.Job(namespace=parent[1], name=parent[2]),
            root=kinds.Root(
                run=kinds.RootRun(runId=root[0]), job=kinds.RootJob(namespace=root[1], name=root[2])
            )
            if root
            else None,
        )
    if nominal_time:
        facets["nominalTime"] = facet.nominal_time_run.NominalTimeRunFacet(nominalStartTime=nominal_time)
    return facets


def outcome_facets(error: str | None = None, assertions: Sequence[Assertion] = ()) -> dict[str, Any]:
    """Return the facets of a run that tell how it went.

    Args:
        error: What a user would want to read.
        assertions: Tests that ran.
    """
    facets: dict[str, Any] = {}
    if error:
        facets["errorMessage"] = facet.error_message_run.ErrorMessageRunFacet(
            message=error[:_MESSAGE_LIMIT], programmingLanguage="python"
        )
    if assertions:
        facets["test"] = facet.test_run.TestRunFacet(
            tests=[
                facet.test_run.TestExecution(
                    name=one.name,
                    status="pass" if one.success else "fail",
                    severity=one.severity,
                    type=one.kind,
                    description=one.description,
                    actual=one.actual,
                )
                for one in assertions
            ]
        )
    return facets


def input_dataset(
    name: DatasetName, *, snapshot: str | None = None, assertions: Sequence[Assertion] = ()
) -> ol.InputDataset:
    """Return a dataset that is read.

    Args:
        name: What it is called.
        snapshot: Iceberg's id of the snapshot that is read.
        assertions: Tests of it.
    """
    facets = _symlinks(name)
    if snapshot:
        facets["version"] = facet.dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=snapshot)
    found = facet.data_quality_assertions_dataset
    quality = [
        found.Assertion(
            assertion=one.kind,
            success=one.success,
            column=one.column,
            severity=one.severity,
            name=one.name,
            description=one.description,
            actual=one.actual,
        )
        for one in assertions
    ]
    return ol.InputDataset(
        namespace=name.namespace,
        name=name.name,
        facets=facets,
        inputFacets={"dataQualityAssertions": found.DataQualityAssertionsDatasetFacet(assertions=quality)}
        if quality
        else {},
    )


def output_dataset(
    name: DatasetName,
    state: TableState,
    *,
    catalog: CatalogNames | None,
    owners: Iterable[str] = (),
    tags: Iterable[tuple[str, str, str | None]] = (),
    description: str | None = None,
) -> ol.OutputDataset:
    """Return a dataset that is written.

    Args:
        name: What it is called.
        state: As it is now.
        catalog: Of an Iceberg table; None for a relation that is not published.
        owners: Teams or addresses.
        tags: Key, value and column.
        description: For people.
    """
    facets = _symlinks(name)
    facets["datasetType"] = facet.dataset_type_dataset.DatasetTypeDatasetFacet(datasetType=state.kind)
    facets["dataSource"] = facet.datasource_dataset.DatasourceDatasetFacet(
        name=name.namespace, uri=name.namespace if "://" in name.namespace else f"{name.namespace}://"
    )
    schema, columns = facet.schema_dataset, facet.column_lineage_dataset
    if state.columns:
        facets["schema"] = schema.SchemaDatasetFacet(
            fields=[
                schema.SchemaDatasetFacetFields(
                    name=column, type=kind, description=text or None, ordinal_position=number
                )
                for number, (column, kind, text) in enumerate(state.columns, 1)
            ]
        )
    if state.lineage:
        facets["columnLineage"] = columns.ColumnLineageDatasetFacet(
            fields={
                column: columns.Fields(
                    inputFields=[
                        columns.InputField(namespace=source.namespace, name=source.name, field=from_column)
                        for source, from_column in sources
                    ]
                )
                for column, sources in state.lineage.items()
                if sources
            }
        )
    if owned := [facet.ownership_dataset.Owner(name=owner, type="OWNER") for owner in owners]:
        facets["ownership"] = facet.ownership_dataset.OwnershipDatasetFacet(owners=owned)
    tagged = [
        facet.tags_dataset.TagsDatasetFacetFields(key=key, value=value or "true", source="FLOE", field=column)
        for key, value, column in tags
    ]
    if tagged:
        facets["tags"] = facet.tags_dataset.TagsDatasetFacet(tags=tagged)
    if description:
        facets["documentation"] = facet.documentation_dataset.DocumentationDatasetFacet(
            description=description
        )
    if catalog is not None:
        facets |= _iceberg(state, catalog)
    statistics: dict[str, Any] = {}
    if state.rows is not None:
        statistics["outputStatistics"] = (
            facet.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                rowCount=state.rows, size=state.bytes, fileCount=state.files
            )
        )
    return ol.OutputDataset(namespace=name.namespace, name=name.name, facets=facets, outputFacets=statistics)


def _iceberg(state: TableState, catalog: CatalogNames) -> dict[str, Any]:
    change = facet.lifecycle_state_change_dataset
    facets: dict[str, Any] = {
        "catalog": facet.catalog_dataset.CatalogDatasetFacet(
            framework="iceberg",
            type=catalog.type,
            name=catalog.warehouse or "floe",
            metadataUri=catalog.uri,
            warehouseUri=catalog.warehouse,
            source="floe",
        ),
        "storage": facet.storage_dataset.StorageDatasetFacet(storageLayer="iceberg", fileFormat="parquet"),
        "lifecycleStateChange": change.LifecycleStateChangeDatasetFacet(
            lifecycleStateChange=change.LifecycleStateChange.CREATE
            if state.created
            else change.LifecycleStateChange.OVERWRITE
        ),
    }
    if state.snapshot:
        facets["version"] = facet.dataset_version_dataset.DatasetVersionDatasetFacet(
            datasetVersion=state.snapshot
        )
    return facets


def _symlinks(name: DatasetName) -> dict[str, Any]:
    if not name.symlinks:
        return {}
    return {
        "symlinks": facet.symlinks_dataset.SymlinksDatasetFacet(
            identifiers=[
                facet.symlinks_dataset.Identifier(namespace=namespace, name=other, type="TABLE")
                for namespace, other in name.symlinks
            ]
        )
    }
