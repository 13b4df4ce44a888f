"""The validator of OpenLineage events: what the official client makes passes, and damage of every kind is found."""

from __future__ import annotations

import copy
import json
import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openlineage.client import event_v2, facet_v2
from openlineage.client.serde import Serde

from tests.services.openlineage_schemas import OpenLineageSchemas

Event = dict[str, Any]

PRODUCER = "https://example.com/floe-dagster/0.1.0"
NOW = "2026-01-02T03:04:05.678901+00:00"
RUN, PARENT, ROOT = (str(uuid.UUID(int=number)) for number in (1, 2, 3))
S3 = "s3://warehouse"


@pytest.fixture(scope="module")
def schemas() -> OpenLineageSchemas:
    return OpenLineageSchemas.from_environment()


def run_facets() -> dict[str, Any]:
    return {
        "parent": facet_v2.parent_run.ParentRunFacet(
            run=facet_v2.parent_run.Run(runId=PARENT),
            job=facet_v2.parent_run.Job(namespace="floe", name="shop"),
            root=facet_v2.parent_run.Root(
                run=facet_v2.parent_run.RootRun(runId=ROOT),
                job=facet_v2.parent_run.RootJob(namespace="floe", name="nightly"),
            ),
        ),
        "nominalTime": facet_v2.nominal_time_run.NominalTimeRunFacet(
            nominalStartTime="2026-01-02T00:00:00Z", nominalEndTime="2026-01-03T00:00:00Z"
        ),
        "errorMessage": facet_v2.error_message_run.ErrorMessageRunFacet(
            message="no such table", programmingLanguage="Python", stackTrace="Traceback"
        ),
        "processing_engine": facet_v2.processing_engine_run.ProcessingEngineRunFacet(
            version="2.0.0", name="DuckDB", openlineageAdapterVersion="0.1.0"
        ),
        "tags": facet_v2.tags_run.TagsRunFacet(
            tags=[facet_v2.tags_run.TagsRunFacetFields(key="trigger", value="schedule", source="DAGSTER")]
        ),
    }


def job_facets() -> dict[str, Any]:
    return {
        "jobType": facet_v2.job_type_job.JobTypeJobFacet(
            processingType="BATCH", integration="DBT", jobType="MODEL"
        ),
        "sourceCodeLocation": facet_v2.source_code_location_job.SourceCodeLocationJobFacet(
            type="git",
            url="https://example.com/shop/models/orders.sql",
            repoUrl="https://example.com/shop.git",
            path="models/orders.sql",
            version="0" * 40,
            branch="main",
        ),
        "sql": facet_v2.sql_job.SQLJobFacet(query="select 1 as id", dialect="duckdb"),
        "ownership": facet_v2.ownership_job.OwnershipJobFacet(
            owners=[facet_v2.ownership_job.Owner(name="team:shop", type="MAINTAINER")]
        ),
        "documentation": facet_v2.documentation_job.DocumentationJobFacet(
            description="Orders", contentType="text/markdown"
        ),
        "tags": facet_v2.tags_job.TagsJobFacet(
            tags=[facet_v2.tags_job.TagsJobFacetFields(key="layer", value="gold", source="DBT")]
        ),
    }


def dataset_facets() -> dict[str, Any]:
    return {
        "schema": facet_v2.schema_dataset.SchemaDatasetFacet(
            fields=[
                facet_v2.schema_dataset.SchemaDatasetFacetFields(name="id", type="long", ordinal_position=1),
                facet_v2.schema_dataset.SchemaDatasetFacetFields(
                    name="lines",
                    type="struct",
                    fields=[facet_v2.schema_dataset.SchemaDatasetFacetFields(name="sku", type="string")],
                ),
            ]
        ),
        "columnLineage": facet_v2.column_lineage_dataset.ColumnLineageDatasetFacet(
            fields={
                "id": facet_v2.column_lineage_dataset.Fields(
                    inputFields=[
                        facet_v2.column_lineage_dataset.InputField(
                            namespace=S3,
                            name="shop.raw",
                            field="id",
                            transformations=[
                                facet_v2.column_lineage_dataset.Transformation(
                                    type="DIRECT", subtype="IDENTITY", description="", masking=False
                                )
                            ],
                        )
                    ]
                )
            },
            dataset=[facet_v2.column_lineage_dataset.InputField(namespace=S3, name="shop.raw", field="day")],
        ),
        "dataSource": facet_v2.datasource_dataset.DatasourceDatasetFacet(name=S3, uri="s3://warehouse/shop"),
        "catalog": facet_v2.catalog_dataset.CatalogDatasetFacet(
            framework="iceberg",
            type="rest",
            name="floe",
            metadataUri="http://127.0.0.1:8181/api/catalog",
            warehouseUri=S3,
            source="pyiceberg",
            catalogProperties={"realm": "default"},
        ),
        "version": facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet(
            datasetVersion="8123456789012345678"
        ),
        "storage": facet_v2.storage_dataset.StorageDatasetFacet(storageLayer="iceberg", fileFormat="parquet"),
        "symlinks": facet_v2.symlinks_dataset.SymlinksDatasetFacet(
            identifiers=[
                facet_v2.symlinks_dataset.Identifier(namespace="floe", name="shop.orders", type="TABLE")
            ]
        ),
        "ownership": facet_v2.ownership_dataset.OwnershipDatasetFacet(
            owners=[facet_v2.ownership_dataset.Owner(name="team:shop", type="OWNER")]
        ),
        "documentation": facet_v2.documentation_dataset.DocumentationDatasetFacet(description="Orders"),
        "tags": facet_v2.tags_dataset.TagsDatasetFacet(
            tags=[facet_v2.tags_dataset.TagsDatasetFacetFields(key="pii", value="true", field="id")]
        ),
        "lifecycleStateChange": facet_v2.lifecycle_state_change_dataset.LifecycleStateChangeDatasetFacet(
            lifecycleStateChange=facet_v2.lifecycle_state_change_dataset.LifecycleStateChange.OVERWRITE,
            previousIdentifier=facet_v2.lifecycle_state_change_dataset.PreviousIdentifier(
                name="shop.orders_old", namespace=S3
            ),
        ),
    }


def input_facets() -> dict[str, Any]:
    return {
        "dataQualityAssertions": facet_v2.data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet(
            assertions=[
                facet_v2.data_quality_assertions_dataset.Assertion(
                    assertion="not_null", success=False, column="id", severity="error", actual="3"
                )
            ]
        )
    }


def output_facets() -> dict[str, Any]:
    return {
        "outputStatistics": facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
            rowCount=10, size=2048, fileCount=1
        )
    }


def event(
    run: dict[str, Any] | None = None,
    job: dict[str, Any] | None = None,
    source: dict[str, Any] | None = None,
    target: dict[str, Any] | None = None,
    checked: dict[str, Any] | None = None,
    written: dict[str, Any] | None = None,
) -> Event:
    """Make an event with these facets, as the client sends it."""
    made = event_v2.RunEvent(
        eventType=event_v2.RunState.COMPLETE,
        eventTime=NOW,
        producer=PRODUCER,
        run=event_v2.Run(runId=RUN, facets=run or {}),
        job=event_v2.Job(namespace="floe", name="shop.orders", facets=job or {}),
        inputs=[
            event_v2.InputDataset(
                namespace=S3, name="shop.raw", facets=source or {}, inputFacets=checked or {}
            )
        ],
        outputs=[
            event_v2.OutputDataset(
                namespace=S3, name="shop.orders", facets=target or {}, outputFacets=written or {}
            )
        ],
    )
    sent: Event = json.loads(Serde.to_json(made))
    return sent


@pytest.fixture
def full() -> Event:
    return event(
        run_facets(), job_facets(), dataset_facets(), dataset_facets(), input_facets(), output_facets()
    )


@pytest.mark.parametrize("state", event_v2.RunState)
def test_an_event_without_facets_passes(schemas: OpenLineageSchemas, state: event_v2.RunState) -> None:
    schemas.check(event() | {"eventType": state.value})


def test_an_event_with_every_facet_passes_without_network(
    schemas: OpenLineageSchemas, full: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"connects to {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    schemas.check(full)


@pytest.mark.parametrize(
    ("part", "facets"),
    [
        ("run", run_facets()),
        ("job", job_facets()),
        ("source", dataset_facets()),
        ("target", dataset_facets()),
        ("checked", input_facets()),
        ("written", output_facets()),
    ],
)
def test_every_facet_alone_passes_and_is_held_to_its_own_schema(
    schemas: OpenLineageSchemas, part: str, facets: dict[str, Any]
) -> None:
    for key, facet in facets.items():
        made = event(**{part: {key: facet}})
        schemas.check(made)
        found = _facet(made, key)
        found["_schemaURL"] = found["_schemaURL"].replace("Facet.json", "Other.json")
        assert [problem for problem in schemas.validate(made) if "_schemaURL" in problem], key


def _facet(made: Event, key: str) -> dict[str, Any]:
    """Return the only facet of a name."""
    groups = [made["run"]["facets"], made["job"]["facets"]]
    for dataset in [*made["inputs"], *made["outputs"]]:
        groups += [dataset["facets"], dataset.get("inputFacets", {}), dataset.get("outputFacets", {})]
    (found,) = [group[key] for group in groups if key in group]
    facet: dict[str, Any] = found
    return facet


def _set(path: str, value: Any) -> Callable[[Event], None]:
    def damage(made: Event) -> None:
        owner, last = _walk(made, path)
        owner[last] = value

    return damage


def _drop(path: str) -> Callable[[Event], None]:
    def damage(made: Event) -> None:
        owner, last = _walk(made, path)
        del owner[last]

    return damage


def _move(path: str, to: str) -> Callable[[Event], None]:
    def damage(made: Event) -> None:
        owner, last = _walk(made, path)
        value = owner.pop(last)
        owner, last = _walk(made, to)
        owner[last] = value

    return damage


def _walk(made: Any, path: str) -> tuple[Any, Any]:
    *parts, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in parts:
        made = made.setdefault(part, {}) if isinstance(made, dict) else made[part]
    return made, last


PARENT_URL = "https://openlineage.io/spec/facets/{}/ParentRunFacet.json#/$defs/ParentRunFacet"
VENDOR_FACET = {"_producer": PRODUCER, "_schemaURL": "https://example.com/floe/run.json", "target": "prod"}
DAMAGE: list[tuple[Callable[[Event], None], str]] = [
    (_drop("eventTime"), "$: 'eventTime'"),
    (_drop("producer"), "$: 'producer'"),
    (_drop("schemaURL"), "$: 'schemaURL'"),
    (_drop("run"), "$: 'run'"),
    (_drop("job/name"), "$.job: 'name'"),
    (_drop("inputs/0/namespace"), "$.inputs[0]: 'namespace'"),
    (_set("outputs", {}), "$.outputs: "),
    (_set("eventType", "DONE"), "$.eventType: 'DONE'"),
    (_set("eventTime", "2026-01-02 03:04"), "$.eventTime: "),
    (_set("eventTime", "2026-01-02T03:04:05"), "$.eventTime: "),
    (_set("run/runId", "run-1"), "$.run.runId: "),
    (_set("producer", "floe dagster"), "$.producer: "),
    (
        _set("schemaURL", "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/JobEvent"),
        "$.schemaURL: ",
    ),
    (
        _set("schemaURL", "https://openlineage.io/spec/1-0-5/OpenLineage.json#/$defs/RunEvent"),
        "$.schemaURL: ",
    ),
    (_drop("run/facets/tags/_producer"), "$.run.facets.tags: '_producer'"),
    (_drop("job/facets/sql/_schemaURL"), "$.job.facets.sql: '_schemaURL'"),
    (_drop("job/facets/sql/query"), "$.job.facets.sql: 'query'"),
    (_set("job/facets/sql", []), "$.job.facets.sql: "),
    (_set("run/facets/parent/run/runId", "x"), "$.run.facets.parent.run.runId: "),
    (_drop("run/facets/parent/root/job/name"), "$.run.facets.parent.root.job: 'name'"),
    (_set("run/facets/parent/run/facets", {"mine": VENDOR_FACET}), "$.run.facets.parent.run.facets.mine: "),
    (_set("run/facets/parent/_schemaURL", PARENT_URL.format("1-9-0")), "$.run.facets.parent._schemaURL: "),
    (_set("run/facets/parent/_schemaURL", PARENT_URL.format("2-0-0")), "$.run.facets.parent._schemaURL: "),
    (
        _set("run/facets/tags/_schemaURL", PARENT_URL.format("1-2-0")),
        "$.run.facets.tags._schemaURL: ",
    ),
    (
        _set(
            "run/facets/tags/_schemaURL", "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunFacet"
        ),
        "$.run.facets.tags._schemaURL: ",
    ),
    (_set("run/facets/nominalTime/nominalStartTime", "today"), "$.run.facets.nominalTime.nominalStartTime: "),
    (_set("outputs/0/facets/dataSource/uri", "a b"), "$.outputs[0].facets.dataSource.uri: "),
    (_set("outputs/0/outputFacets/outputStatistics/rowCount", "10"), "outputStatistics.rowCount: "),
    (_set("outputs/0/facets/lifecycleStateChange/lifecycleStateChange", "GONE"), "lifecycleStateChange: "),
    (
        _drop("outputs/0/facets/columnLineage/fields/id/inputFields/0/field"),
        "$.outputs[0].facets.columnLineage.fields.id.inputFields[0]: 'field'",
    ),
    (
        _set("outputs/0/facets/schema/fields/1/fields/0/type", 7),
        "$.outputs[0].facets.schema.fields[1].fields[0].type: ",
    ),
    (
        _drop("inputs/0/inputFacets/dataQualityAssertions/assertions/0/success"),
        "$.inputs[0].inputFacets.dataQualityAssertions.assertions[0]: 'success'",
    ),
    (
        _move("inputs/0/inputFacets/dataQualityAssertions", "inputs/0/facets/dataQualityAssertions"),
        "$.inputs[0].facets.dataQualityAssertions: this facet belongs into inputFacets",
    ),
    (_move("job/facets/jobType", "run/facets/jobType"), "$.run.facets.jobType: this facet belongs into"),
    (
        _move("run/facets/processing_engine", "run/facets/processingEngine"),
        "$.run.facets.processingEngine: no",
    ),
    (_set("run/facets/other_run", VENDOR_FACET), "$.run.facets.other_run: no official facet"),
    (
        _set("run/facets/floe_run", {"_schemaURL": "https://example.com/floe/run.json"}),
        "$.run.facets.floe_run: '_producer'",
    ),
    (
        _set(
            "run/facets/floe_run",
            VENDOR_FACET
            | {
                "_schemaURL": "https://openlineage.io/spec/facets/1-0-0/FloeRunFacet.json#/$defs/FloeRunFacet"
            },
        ),
        "$.run.facets.floe_run._schemaURL: ",
    ),
]


@pytest.mark.parametrize(("damage", "place"), DAMAGE, ids=[place for _, place in DAMAGE])
def test_damage_is_found_where_it_is(
    schemas: OpenLineageSchemas, full: Event, damage: Callable[[Event], None], place: str
) -> None:
    damage(full)
    problems = schemas.validate(full)
    assert len(problems) == 1, problems
    assert place in problems[0]
    with pytest.raises(AssertionError, match="shop"):
        schemas.check(full)


def test_an_earlier_version_of_a_facet_passes(schemas: OpenLineageSchemas, full: Event) -> None:
    full["run"]["facets"]["parent"]["_schemaURL"] = PARENT_URL.format("1-0-1")
    schemas.check(full)


def test_a_vendor_facet_passes(schemas: OpenLineageSchemas, full: Event) -> None:
    full["run"]["facets"]["floe_run"] = VENDOR_FACET
    core = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunFacet"
    full["run"]["facets"]["floe_other"] = VENDOR_FACET | {"_schemaURL": core}
    schemas.check(full)


def test_a_vendor_facet_is_held_to_the_schema_that_is_given(
    schemas: OpenLineageSchemas, full: Event, tmp_path: Path
) -> None:
    identifier = "https://example.com/floe/1-0-0/FloeRunFacet.json"
    core = schemas.core + "#/$defs/RunFacet"
    target = {"type": "object", "properties": {"target": {"type": "string"}}, "required": ["target"]}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": identifier,
        "$defs": {"FloeRunFacet": {"type": "object", "allOf": [{"$ref": core}, target]}},
        "type": "object",
        "properties": {"floe_run": {"$ref": "#/$defs/FloeRunFacet"}},
    }
    path = tmp_path / "FloeRunFacet.json"
    path.write_text(json.dumps(schema))
    strict = OpenLineageSchemas.from_environment(vendor=[path])
    good = copy.deepcopy(full)
    good["run"]["facets"]["floe_run"] = VENDOR_FACET | {"_schemaURL": f"{identifier}#/$defs/FloeRunFacet"}
    strict.check(good)
    del good["run"]["facets"]["floe_run"]["target"]
    assert strict.validate(good) == ["$.run.facets.floe_run: 'target' is a required property"]


@pytest.mark.parametrize("named", ["", "/nowhere"])
def test_missing_schemas_are_explained(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("FLOE_SPECS", named)
    with pytest.raises(FileNotFoundError, match=r"FLOE_SPECS has to name .* facets/\*\.json .*OpenLineage"):
        OpenLineageSchemas.from_environment()


def test_a_reference_that_leads_nowhere_is_no_reason_to_download(tmp_path: Path) -> None:
    folder = tmp_path / "facets"
    folder.mkdir()
    (tmp_path / "OpenLineage.json").write_text(json.dumps({"$id": "https://example.com/OpenLineage.json"}))
    facet = {"$id": "https://example.com/A.json", "$defs": {"A": {"$ref": "https://example.com/B.json"}}}
    (folder / "A.json").write_text(json.dumps(facet))
    with pytest.raises(FileNotFoundError, match=r"refers to https://example.com/B.json"):
        OpenLineageSchemas(tmp_path)
