"""One run of a product: its trace, its metrics, its lineage, and the ways between them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from floe_dagster.observability.trace_context import TraceParent
from tests.integration.observing.observed import (
    PERSON,
    REPOSITORY,
    SECRET,
    Project,
    lineage_to,
    make_product,
    names_below,
    project,
    tracing,
    tree_of,
)
from tests.receivers import LineageReceiver, OtlpReceiver, Span, Tree

SCHEDULED = "2026-01-02T06:00:00+00:00"
STAGING_TESTS = {
    "test accepted_values_stg_orders_customer__nobody",
    "test not_null_stg_orders_order_id",
    "test unique_stg_orders_order_id",
}
MART_TEST = "test unique_mart_customers_customer"
SEED_NAME = ("duckdb://shop.duckdb", "shop.main.raw_orders")


@dataclass
class Seen:
    """What the receivers got of a run."""

    project: Project
    otlp: OtlpReceiver
    lineage: LineageReceiver
    ran: Any
    captured: str = ""
    compiled: Any = None

    @property
    def tree(self) -> Tree:
        return tree_of(self.otlp, self.ran.run_id)

    def events(self, job: str) -> list[dict[str, Any]]:
        return [
            event
            for event in self.lineage.events()
            if event["job"]["name"] == job and tag(event, "dagster_run_id") == self.ran.run_id
        ]

    def event(self, job: str, state: str) -> dict[str, Any]:
        found = [event for event in self.events(job) if event["eventType"] == state]
        assert len(found) == 1, (job, state, [event["eventType"] for event in self.events(job)])
        return found[0]

    def output(self, job: str) -> dict[str, Any]:
        (output,) = self.event(job, "COMPLETE")["outputs"]
        return output  # type: ignore[no-any-return]

    def table(self, name: str) -> tuple[str, str]:
        location = self.project.snapshot(f"shop.{name}")[2]
        return "file", location.removeprefix("file://")


def tag(event: dict[str, Any], key: str) -> str | None:
    tags = event["run"]["facets"]["tags"]["tags"]
    return next((tag["value"] for tag in tags if tag["key"] == key), None)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Compiled and run, over gRPC; as a schedule asks for it."""
    folder = tmp_path_factory.mktemp("grpc")
    with OtlpReceiver() as otlp, LineageReceiver() as lineage, project(folder) as made:
        product = make_product(folder, tracing(otlp), lineage_to(lineage))
        compiled = made.compile(product)
        ran = made.run(product, tags={".dagster/scheduled_execution_time": SCHEDULED})
        assert compiled.success and ran.success
        yield Seen(made, otlp, lineage, ran, compiled=compiled)


@pytest.fixture(scope="module")
def seen_over_http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("http")
    with OtlpReceiver() as otlp, LineageReceiver() as lineage, project(folder) as made:
        ran = made.run(make_product(folder, tracing(otlp, "http"), lineage_to(lineage)))
        assert ran.success
        yield Seen(made, otlp, lineage, ran)


@pytest.fixture(scope="module")
def broken(seen_over_http: Seen) -> Seen:
    """The same product once more, with a staging model that DuckDB cannot compute, and says which value it is."""
    product = seen_over_http.project.folder / "shop"
    staging = product / "models" / "staging" / "stg_orders.sql"
    staging.write_text(
        "select id as order_id, cast(customer as integer) as customer, amount from {{ ref('raw_orders') }}\n"
    )
    ran = seen_over_http.project.run(product)
    assert not ran.success
    return Seen(seen_over_http.project, seen_over_http.otlp, seen_over_http.lineage, ran)


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_a_run_is_one_tree_of_spans(transport: str, seen: Seen, seen_over_http: Seen) -> None:
    seen = seen if transport == "grpc" else seen_over_http
    tree = seen.tree
    assert tree.root.name == "run shop_run" and tree.root.status == "UNSET"
    assert set(names_below(tree, tree.root)) == {"launch", "step shop_dbt"}
    step = tree.one("step shop_dbt")
    assert set(names_below(tree, step)) == {
        "seed raw_orders",
        "model stg_orders",
        "model mart_customers",
        *STAGING_TESTS,
        MART_TEST,
        "publish shop.stg_orders",
        "publish shop.mart_customers",
    }
    for table in ("stg_orders", "mart_customers"):
        assert names_below(tree, tree.one(f"publish shop.{table}")) == ["load table", "write files", "commit"]
    assert {request.transport for request in seen.otlp.requests()} == {transport}
    # Whatever is asked for by reference is looked up where it is sent, and nowhere else.
    assert {request.headers["authorization"] for request in seen.otlp.requests()} == {SECRET}


def test_a_compilation_is_one_tree_of_spans(seen: Seen) -> None:
    tree = tree_of(seen.otlp, seen.compiled.run_id)
    assert set(names_below(tree, tree.root)) == {"launch", "step shop_compile_step"}
    assert names_below(tree, tree.one("step shop_compile_step")) == ["compile"]
    compilation = tree.one("compile", floe__cache="miss")
    stages = names_below(tree, compilation)
    assert [*dict.fromkeys(stages)] == [
        f"stage {name}" for name in ("LOAD", "VALIDATE", "RESOLVE", "ENFORCE", "COMPILE", "GENERATE")
    ]
    for stage in tree.children(compilation):
        assert compilation.start <= stage.start and stage.end <= compilation.end


def compilation_of(otlp: OtlpReceiver, run_id: str) -> tuple[Span, list[str]]:
    """Return the span of a compilation and the names below it; a sensor that ends the run is not there."""
    spans = [span for span in otlp.spans() if span.attributes.get("floe.dagster.run_id") == run_id]
    (found,) = [span for span in spans if span.name == "compile"]
    (step,) = [span for span in spans if span.name == "step shop_compile_step"]
    assert found.parent_id == step.span_id and step.start <= found.start <= found.end <= step.end
    return found, [span.name for span in spans if span.parent_id == found.span_id]


def test_a_compilation_of_what_has_not_changed_says_so(tmp_path: Path) -> None:
    with OtlpReceiver() as otlp, project(tmp_path) as made:
        product = make_product(tmp_path, tracing(otlp), None)
        runs = [made.compile(product) for _twice in range(2)]
        assert all(ran.success for ran in runs)
        (first, stages), (second, none) = (compilation_of(otlp, ran.run_id) for ran in runs)
        assert (first.attributes["floe.cache"], second.attributes["floe.cache"]) == ("miss", "hit")
        assert stages and none == [] and second.start < second.end
        assert first.attributes["floe.source_digest"] == second.attributes["floe.source_digest"]
        points = [point for point in otlp.metrics() if point.name == "floe.compilations"]
        assert {point.attributes["floe.cache"]: point.value for point in points} == {"miss": 1, "hit": 1}


def test_a_compilation_that_is_blocked_says_why(tmp_path: Path) -> None:
    with OtlpReceiver() as otlp, project(tmp_path) as made:
        product = make_product(tmp_path, tracing(otlp), None)
        assert made.compile(product).success
        (product / "models" / "marts" / "mart_customers.sql").write_text(
            "select * from {{ ref('nobody') }}\n"
        )
        ran = made.compile(product)
        assert not ran.success
        compilation, _stages = compilation_of(otlp, ran.run_id)
        assert compilation.status == "ERROR" and "nobody" in compilation.status_message
        assert compilation.attributes["error.type"] and compilation.attributes["floe.cache"] == "miss"


def test_spans_lie_in_their_parents_and_nodes_have_the_times_of_dbt(seen: Seen) -> None:
    tree = seen.tree
    for depth, span in tree.walk():
        parent = tree.parent(span)
        assert span.start <= span.end
        if depth and parent:
            assert parent.start <= span.start and span.end <= parent.end, f"{span.name}:\n{tree}"
    folder = seen.project.home.path / "dbt" / "shop" / "target"
    (results,) = folder.rglob("run_results.json")
    for result in json.loads(results.read_text())["results"]:
        (span,) = [s for s in tree.spans if s.attributes.get("floe.dbt.unique_id") == result["unique_id"]]
        for timing in result["timing"]:
            begun, ended = (nanoseconds(timing[key]) for key in ("started_at", "completed_at"))
            assert span.start <= begun and ended <= span.end + 1_000_000_000
        assert abs((span.end - span.start) / 1e9 - result["execution_time"]) < 0.5
    # One after the other, as the graph says.
    order = ["seed raw_orders", "model stg_orders", "model mart_customers"]
    order += ["publish shop.stg_orders", "publish shop.mart_customers"]
    spans = [tree.one(name) for name in order]
    assert all(first.end <= second.start for first, second in pairwise(spans))


def nanoseconds(text: str) -> int:
    when = datetime.fromisoformat(text)
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1e9)


def test_spans_say_what_they_worked_on(seen: Seen) -> None:
    tree, run_id = seen.tree, seen.ran.run_id
    for span in tree.spans:
        assert span.resource["service.name"] == "shop" and span.resource["service.version"] == "1.2.0"
        assert span.resource["deployment.environment.name"] == "dev"
        assert span.resource["floe.product.name"] == "shop" and span.scope == "floe_dagster"
        if span.name not in ("load table", "write files", "commit"):
            assert span.attributes["floe.product"] == "shop"
            assert span.attributes["floe.dagster.run_id"] == run_id
            assert span.attributes["floe.dagster.job"] == "shop_run"
    assert attributes(tree.one("model stg_orders"), "db.", "code.", "floe.dbt.") == {
        "db.system.name": "duckdb",
        "db.namespace": "main",
        "db.collection.name": "stg_orders",
        "db.operation.name": "table",
        "code.file.path": "models/staging/stg_orders.sql",
        "floe.dbt.unique_id": "model.shop.stg_orders",
        "floe.dbt.status": "success",
    }
    assert tree.one("seed raw_orders").attributes["code.file.path"] == "seeds/raw_orders.csv"
    test = tree.one("test accepted_values_stg_orders_customer__nobody")
    assert test.attributes["floe.dbt.status"] == "warn" and test.status == "UNSET"
    assert test.attributes["code.file.path"] == "models/schema.yml"
    step = tree.one("step shop_dbt").attributes
    assert step["floe.dagster.step"] == step["code.function.name"] == "shop_dbt"
    assert step["floe.dagster.attempt"] == 0
    snapshot, properties, location = seen.project.snapshot("shop.mart_customers")
    assert attributes(tree.one("publish shop.mart_customers"), "db.", "floe.iceberg.", "floe.rows") == {
        "db.system.name": "iceberg",
        "db.namespace": "shop",
        "db.collection.name": "mart_customers",
        "db.operation.name": "publish",
        "floe.iceberg.snapshot_id": str(snapshot),
        "floe.iceberg.location": location,
        "floe.iceberg.write_mode": "overwrite",
        "floe.rows": 3,
    }
    publication = tree.one("publish shop.mart_customers").attributes
    assert publication["floe.bytes"] == int(properties["added-files-size"])
    assert publication["floe.commit.attempts"] == 1
    assert tree.root.attributes["floe.dagster.status"] == "COMPLETE"


def attributes(span: Span, *prefixes: str) -> dict[str, Any]:
    return {key: value for key, value in span.attributes.items() if key.startswith(prefixes)}


def test_what_fails_says_so_up_to_the_run_in_dbts_words_without_the_row(broken: Seen) -> None:
    tree = broken.tree
    failed = {span.name: span for span in tree.spans if span.status == "ERROR"}
    assert set(failed) >= {"run shop_run", "step shop_dbt", "model stg_orders"}
    model = failed["model stg_orders"]
    assert "Conversion Error" in model.status_message and "INT32" in model.status_message
    assert model.attributes["error.type"] == "dbt_error"
    (event,) = model.events
    assert event.name == "exception" and "Conversion Error" in event.attributes["exception.message"]
    assert failed["step shop_dbt"].attributes["error.type"] == "Failure"
    for name in ("step shop_dbt", "run shop_run"):
        assert "- stg_orders:" in failed[name].status_message
        assert "mart_customers" in failed[name].status_message
    assert tree.root.attributes["floe.dagster.status"] == "FAIL"
    assert tree.root.attributes["error.type"] == "run_failed"
    assert not any(name.startswith("publish") for name in names_below(tree, tree.one("step shop_dbt")))


def test_a_failure_is_told_to_lineage_in_dbts_words(broken: Seen) -> None:
    error = broken.event("shop.stg_orders", "FAIL")["run"]["facets"]["errorMessage"]
    assert "Conversion Error" in error["message"]


def test_a_failure_is_told_to_lineage(broken: Seen) -> None:
    error = broken.event("shop.stg_orders", "FAIL")["run"]["facets"]["errorMessage"]
    assert "stg_orders" in error["message"]
    assert {event["eventType"] for event in broken.events("shop.stg_orders")} == {"START", "FAIL"}
    of_run = broken.event("shop_run", "FAIL")["run"]["facets"]["errorMessage"]
    assert "- stg_orders:" in of_run["message"]
    # What never began has no run.
    assert broken.events("shop.mart_customers") == []
    assert broken.event("shop.raw_orders", "COMPLETE")


def test_neither_rows_nor_secrets_leave(seen: Seen, broken: Seen) -> None:
    for each in (seen, broken):
        told = repr([each.otlp.spans(), each.otlp.metrics(), each.otlp.logs()])
        assert each.otlp.spans() and each.lineage.events()
        text = told + json.dumps(each.lineage.events(), ensure_ascii=False)
        for secret in (PERSON, SECRET, "Ann"):
            assert secret not in text, re.findall(f".{{200}}{secret}.{{50}}", text)[:3]
        kept = [path for path in each.project.home.path.joinpath("outbox").rglob("*") if path.is_file()]
        assert all(SECRET.encode() not in path.read_bytes() for path in kept)


def test_metrics_arrive(seen: Seen) -> None:
    def newest(name: str, **wanted: Any) -> Any:
        wanted = {f"floe.{key}": value for key, value in wanted.items()}
        points = [
            point
            for point in seen.otlp.metrics()
            if point.name == name and wanted.items() <= point.attributes.items()
        ]
        assert points, (name, wanted, {point.name for point in seen.otlp.metrics()})
        return points[-1]

    _snapshot, properties, _location = seen.project.snapshot("shop.mart_customers")
    rows = newest("floe.publication.rows", product="shop", table="mart_customers")
    assert (rows.value, rows.unit, rows.monotonic, rows.temporality) == (3, "{row}", True, "CUMULATIVE")
    written = newest("floe.publication.bytes", table="mart_customers")
    assert (written.value, written.unit) == (int(properties["added-files-size"]), "By")
    publication = newest("floe.publication.duration", table="stg_orders", mode="overwrite")
    assert publication.count == 1 and publication.unit == "s" and 0 < publication.sum < 60
    model = newest("floe.model.duration", node="stg_orders", kind="model", status="success")
    assert model.count == 1 and 0 < model.sum < 60 and sum(model.buckets) == 1
    assert newest("floe.run.duration", job="shop_run", outcome="succeeded").sum < 120
    assert newest("floe.checks", kind="data_test", outcome="warn", level="warn").value == 1
    assert newest("floe.checks", kind="data_test", outcome="pass", level="error").value == 3
    assert newest("floe.checks", kind="policy", policy="documentation", outcome="warned").value == 1
    assert newest("floe.findings", severity="warning", code="model-description").value == 1
    assert newest("floe.compilations", cache="miss", blocked=False).value == 1
    assert {point.attributes["floe.kind"] for point in seen.otlp.metrics() if "queue" in point.name} == {
        "traces",
        "metrics",
        "lineage events",
    }
    assert all(point.resource["service.name"] == "shop" for point in seen.otlp.metrics())


def test_every_run_and_node_begins_once_and_ends_once(seen: Seen) -> None:
    for job in (
        "shop_run",
        "shop.raw_orders",
        "shop.stg_orders",
        "shop.mart_customers",
        "shop.stg_orders.tests",
        "shop.mart_customers.tests",
    ):
        started, ended = seen.event(job, "START"), seen.event(job, "COMPLETE")
        assert len(seen.events(job)) == 2
        assert started["run"]["runId"] == ended["run"]["runId"]
        assert started["eventTime"] <= ended["eventTime"]
    assert {request["authorization"] for request in (one.headers for one in seen.lineage.received())} == {
        f"Bearer {SECRET}"
    }


def test_events_name_their_run_their_parent_and_their_root(seen: Seen) -> None:
    run_id = seen.ran.run_id
    of_run = seen.event("shop_run", "START")
    assert of_run["run"]["runId"] == run_id and "parent" not in of_run["run"]["facets"]
    assert of_run["job"]["facets"]["jobType"]["integration"] == "DAGSTER"
    assert of_run["job"]["facets"]["jobType"]["processingType"] == "BATCH"
    assert of_run["job"]["facets"]["jobType"]["jobType"] == "JOB"
    assert of_run["job"]["facets"]["tags"]["tags"][0]["key"] == "domain"
    kinds = {
        "raw_orders": "SEED",
        "stg_orders": "MODEL",
        "mart_customers": "MODEL",
        "stg_orders.tests": "TEST",
    }
    for name, kind in kinds.items():
        for event in seen.events(f"shop.{name}"):
            facets = event["run"]["facets"]
            for above in (facets["parent"], facets["parent"]["root"]):
                assert above["run"]["runId"] == run_id
                assert (above["job"]["namespace"], above["job"]["name"]) == ("shop", "shop_run")
            assert event["job"]["facets"]["jobType"]["jobType"] == kind
            assert event["job"]["facets"]["jobType"]["integration"] == "DBT"
    for event in seen.lineage.events():
        scheduled = event["run"]["facets"].get("nominalTime", {}).get("nominalStartTime")
        assert scheduled == (SCHEDULED if tag(event, "dagster_run_id") == run_id else None)
        assert event["run"]["facets"]["processing_engine"]["name"] == "Dagster"
    node = seen.event("shop.stg_orders", "COMPLETE")["run"]["runId"]
    assert node == seen.tree.one("model stg_orders").attributes["floe.openlineage.node_run_id"]


def test_events_name_source_and_query(seen: Seen) -> None:
    job = seen.event("shop.stg_orders", "COMPLETE")["job"]["facets"]
    source = job["sourceCodeLocation"]
    path = "shop/models/staging/stg_orders.sql"
    assert (source["type"], source["repoUrl"], source["path"]) == ("git", REPOSITORY, path)
    assert source["url"] == f"{REPOSITORY}/blob/HEAD/{path}"
    assert job["sql"]["dialect"] == "duckdb" and '"raw_orders"' in job["sql"]["query"]
    assert job["documentation"]["description"] == "Orders as they come."
    assert job["ownership"]["owners"] == [{"name": "shop@example.com", "type": "OWNER"}]
    assert [tag["key"] for tag in job["tags"]["tags"]] == ["hourly"]
    mart = seen.event("shop.mart_customers", "COMPLETE")["job"]["facets"]
    assert [owner["name"] for owner in mart["ownership"]["owners"]] == ["sales@example.com"]


def test_columns_lead_from_the_seed_to_the_mart(seen: Seen) -> None:
    graph = seen.lineage.graph()
    staging, mart = seen.table("stg_orders"), seen.table("mart_customers")
    assert {(SEED_NAME, staging), (staging, mart)} <= graph.datasets()
    assert not [pair for pair in graph.datasets() if pair[0] == pair[1]]

    def sources(job: str) -> dict[str, set[tuple[str, str, str]]]:
        fields = seen.output(job)["facets"]["columnLineage"]["fields"]
        return {
            column: {(one["namespace"], one["name"], one["field"]) for one in found["inputFields"]}
            for column, found in fields.items()
        }

    assert sources("shop.stg_orders") == {
        "order_id": {(*SEED_NAME, "id")},
        "customer": {(*SEED_NAME, "customer")},
        "amount": {(*SEED_NAME, "amount")},
    }
    assert sources("shop.mart_customers") == {
        "customer": {(*staging, "customer")},
        "total": {(*staging, "amount")},
    }


def test_tables_are_described(seen: Seen) -> None:
    snapshot, properties, _location = seen.project.snapshot("shop.stg_orders")
    output = seen.output("shop.stg_orders")
    assert (output["namespace"], output["name"]) == seen.table("stg_orders")
    facets = output["facets"]
    columns = [(column["name"], column["type"]) for column in facets["schema"]["fields"]]
    assert columns == [("order_id", "int"), ("customer", "string"), ("amount", "decimal(10, 2)")]
    assert facets["schema"]["fields"][0]["description"] == "Key of the order."
    assert facets["version"]["datasetVersion"] == str(snapshot)
    assert facets["storage"]["storageLayer"] == "iceberg" and facets["storage"]["fileFormat"] == "parquet"
    assert (facets["catalog"]["framework"], facets["catalog"]["type"]) == ("iceberg", "sql")
    assert facets["lifecycleStateChange"]["lifecycleStateChange"] == "CREATE"
    links = {(link["namespace"], link["name"]) for link in facets["symlinks"]["identifiers"]}
    assert links == {("iceberg", "shop.stg_orders"), ("duckdb://shop.duckdb", "shop.main.stg_orders")}
    assert facets["ownership"]["owners"] == [{"name": "shop@example.com", "type": "OWNER"}]
    tags = {(tag.get("field"), tag["key"], tag["value"]) for tag in facets["tags"]["tags"]}
    assert tags == {
        (None, "hourly", "true"),
        ("customer", "pii", "true"),
        ("customer", "classification", "confidential"),
    }
    assert facets["documentation"]["description"] == "Orders as they come."
    statistics = output["outputFacets"]["outputStatistics"]
    assert (statistics["rowCount"], statistics["fileCount"]) == (3, 1)
    assert statistics["size"] == int(properties["added-files-size"])
    (read,) = seen.event("shop.mart_customers", "COMPLETE")["inputs"]
    assert read["facets"]["version"]["datasetVersion"] == str(snapshot)


def test_tests_and_policies_are_assertions(seen: Seen) -> None:
    event = seen.event("shop.stg_orders.tests", "COMPLETE")
    (tested,) = event["inputs"]
    found = {one["name"]: one for one in tested["inputFacets"]["dataQualityAssertions"]["assertions"]}
    unique = found["unique_stg_orders_order_id"]
    assert unique["success"] and unique["column"] == "order_id" and unique["severity"] == "error"
    values = found["accepted_values_stg_orders_customer__nobody"]
    assert (values["success"], values["assertion"], values["severity"]) == (False, "accepted_values", "warn")
    assert values["actual"] == "3"
    assert found["naming"]["success"] and found["naming"]["assertion"] == "policy:naming"
    (mart,) = seen.event("shop.mart_customers.tests", "COMPLETE")["inputs"]
    assertions = {one["name"]: one for one in mart["inputFacets"]["dataQualityAssertions"]["assertions"]}
    assert not assertions["documentation"]["success"] and assertions["documentation"]["severity"] == "warn"
    tests = {one["name"]: one["status"] for one in event["run"]["facets"]["test"]["tests"]}
    assert tests == {
        "unique_stg_orders_order_id": "pass",
        "not_null_stg_orders_order_id": "pass",
        "accepted_values_stg_orders_customer__nobody": "fail",
    }
    compiled = Seen(seen.project, seen.otlp, seen.lineage, seen.compiled).event("shop_compile", "COMPLETE")
    policies = {one["name"]: one["status"] for one in compiled["run"]["facets"]["test"]["tests"]}
    assert policies["documentation"] == "fail" and policies["naming"] == "pass"


def test_run_trace_lineage_and_snapshot_lead_to_each_other(seen: Seen) -> None:
    """Twelve ways: from each of the four to each of the other three."""
    run_id = seen.ran.run_id
    tree = seen.tree
    trace_id = tree.root.trace_id
    snapshot, properties, _location = seen.project.snapshot("shop.mart_customers")
    node = seen.event("shop.mart_customers", "COMPLETE")
    node_id = node["run"]["runId"]
    made = {
        event.asset_key.path[-1]: event.metadata
        for event in seen.ran.asset_materializations_for_node("shop_dbt")
    }["mart_customers"]

    # From the Dagster run.
    carried = TraceParent.parse(seen.project.tags(run_id)["traceparent"])
    assert carried is not None and f"{carried.trace_id:032x}" == trace_id
    assert f"{carried.span_id:016x}" == tree.root.span_id
    assert made["floe/trace_id"].value == trace_id
    assert seen.event("shop_run", "COMPLETE")["run"]["runId"] == run_id
    assert made["floe/openlineage_run_id"].value == node_id
    assert made["iceberg/snapshot_id"].value == str(snapshot)
    # From the trace.
    publication = tree.one("publish shop.mart_customers").attributes
    assert tree.root.attributes["floe.dagster.run_id"] == publication["floe.dagster.run_id"] == run_id
    assert tree.root.attributes["floe.openlineage.run_id"] == run_id
    assert publication["floe.openlineage.node_run_id"] == node_id
    assert publication["floe.iceberg.snapshot_id"] == str(snapshot)
    # From the OpenLineage run.
    assert tag(node, "dagster_run_id") == run_id
    assert tag(node, "trace_id") == trace_id and tag(node, "span_id") == tree.root.span_id
    assert node["outputs"][0]["facets"]["version"]["datasetVersion"] == str(snapshot)
    # From the snapshot.
    assert properties["floe.dagster-run-id"] == run_id
    assert properties["floe.trace-id"] == trace_id
    assert properties["floe.openlineage-run-id"] == run_id
