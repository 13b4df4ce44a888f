"""OpenLineage events of runs, models and tests: what they say, what datasets are called, and where they go.

tests/services/test_lineage_schemas.py holds the same events to the published schemas.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openlineage.client import event_v2 as ol
from openlineage.client.serde import Serde

from floe_dagster.home import FloeHome
from floe_dagster.observability.lineage.datasets import (
    CatalogNames,
    DatasetName,
    EngineNames,
    column_inputs,
    location_name,
    relation_name,
    table_name,
)
from floe_dagster.observability.lineage.emitter import LineageEmitter
from floe_dagster.observability.lineage.events import ABORT, COMPLETE, FAIL, START, LineageRun, ProductLineage
from floe_dagster.observability.lineage.facets import Assertion, TableState, input_dataset, output_dataset
from floe_dagster.observability.lineage.serialization import encode_event
from floe_dagster.observability.trace_context import lineage_run_id
from floe_dagster.schemas.artifacts import CompiledArtifacts, ObservabilityConfig, PluginRef, ResolvedPlugins
from tests.conftest import ROOT
from tests.index import asset
from tests.receivers import FaultMode, LineageReceiver

RUN = "5e3f0c8e-5f0a-4a7e-9a55-2d2ac0b0c7a1"
ROOT_RUN = "0b9c7b50-77a7-4b45-b3a2-b1b54fb5b0f5"
WHEN = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)
DUCKDB = EngineNames("duckdb", "duckdb://shop.duckdb")
REST = CatalogNames(
    "rest", "https://catalog.example.com/api", "https://catalog.example.com/api", "floe", "s3"
)
ORDERS = asset(
    "model.shop.orders",
    owners=("team:shop", "shop@example.com"),
    tags=("gold", "nightly"),
    description="Orders, as they are paid.",
)
DAILY = asset("model.shop.daily")
ASSERTIONS = [
    Assertion("not_null_orders_id", "not_null", True, "error", "id", "Every order has a key.", "0"),
    Assertion("unique_orders_id", "unique", False, "warn", "id", None, "3"),
    Assertion("naming", "policy:naming", True, "error"),
]


def product(run_id: str = RUN, root: str = RUN, **more: Any) -> ProductLineage:
    given: dict[str, Any] = {
        "slug": "shop",
        "namespace": "floe",
        "owner": "shop@example.com",
        "description": "The shop.",
        "labels": {"domain": "sales", "tier": ""},
        "source": lambda path: (f"https://example.com/shop/{path}", "https://example.com/shop.git", path),
        "run": LineageRun(
            run_id,
            "shop_run",
            root,
            nominal_time="2026-01-02T00:00:00+00:00",
            tags={"dagster_run_id": run_id, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"},
        ),
        "engine": ("DuckDB", "2.0.0"),
    }
    return ProductLineage(**given | more)


def named(name: str) -> DatasetName:
    return table_name(asset(f"model.shop.{name}"), "shop", f"s3://warehouse/shop/{name}", REST, DUCKDB)


def full_output() -> ol.OutputDataset:
    raw = named("raw_orders")
    state = TableState(
        columns=[("id", "BIGINT", "Key."), ("amount", "DECIMAL(18,2)", None), ("now", "TIMESTAMP", "")],
        lineage={"id": [(raw, "id")], "amount": [(raw, "net"), (raw, "tax")], "now": []},
        rows=10,
        bytes=2_048,
        files=1,
        snapshot="7712345678901234567",
        created=True,
    )
    return output_dataset(
        named("orders"),
        state,
        catalog=REST,
        owners=["team:shop"],
        tags=[("tier", "gold", None), ("pii", "", "id")],
        description="Orders.",
    )


def every_event() -> dict[str, ol.RunEvent]:
    """Return one event of every kind, each with all that it may carry, and with as little as it may."""
    shop, bare = (
        product(root=ROOT_RUN),
        product(description=None, labels={}, source=lambda path: None, run=LineageRun(RUN, "shop_run", RUN)),
    )
    view = output_dataset(relation_name(DAILY, DUCKDB), TableState(kind="VIEW"), catalog=None)
    overwritten = output_dataset(
        named("orders"), TableState(rows=0), catalog=CatalogNames("sql", "iceberg", None, None, "local")
    )
    local = output_dataset(DatasetName("file", "/tmp/warehouse/orders"), TableState(), catalog=REST)
    inputs = [input_dataset(named("raw_orders"), snapshot="77"), input_dataset(named("customers"))]
    events: dict[str, ol.RunEvent] = {}
    for state in (START, COMPLETE, FAIL, ABORT):
        error = "no such table" if state == FAIL else None
        events[f"run {state}"] = shop.run_event(state, WHEN, error=error, assertions=ASSERTIONS)
        events[f"bare run {state}"] = bare.run_event(state, WHEN)
        for kind in ("model", "seed", "snapshot"):
            events[f"{kind} {state}"] = shop.asset_event(
                state,
                WHEN,
                replace(ORDERS, type=kind),
                sql="select 1 as id",
                inputs=inputs,
                outputs=[full_output()],
                error=error,
            )
        events[f"bare model {state}"] = bare.asset_event(
            state, WHEN, DAILY, outputs=[view, overwritten, local], error="x" * 20_000 if error else None
        )
        tested = [input_dataset(named("orders"), snapshot="77", assertions=ASSERTIONS)]
        events[f"tests {state}"] = shop.tests_event(
            state, WHEN, ORDERS, ASSERTIONS, inputs=tested, error=error
        )
        events[f"bare tests {state}"] = bare.tests_event(state, WHEN, DAILY, [])
    return events


def said(event: ol.RunEvent) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(Serde.to_dict(event)))
    return found


@pytest.fixture
def lineage() -> Iterator[LineageReceiver]:
    with LineageReceiver() as receiver:
        yield receiver


def test_every_event_is_taken(home: FloeHome, lineage: LineageReceiver) -> None:
    events = every_event()
    emitter = LineageEmitter("shop", ObservabilityConfig(lineage_endpoint=lineage.url), home)
    for event in events.values():
        emitter.emit(event)
    assert emitter.flush()
    emitter.close()
    assert lineage.events() == [said(event) for event in events.values()]


def test_a_run_is_dagsters_run() -> None:
    event = said(product().run_event(START, WHEN))
    assert (event["eventType"], event["eventTime"]) == ("START", "2026-01-02T03:04:05.678901+00:00")
    assert event["run"]["runId"] == RUN
    assert (event["job"]["namespace"], event["job"]["name"]) == ("floe", "shop_run")
    facets = event["run"]["facets"]
    assert facets["nominalTime"]["nominalStartTime"] == "2026-01-02T00:00:00+00:00"
    assert facets["processing_engine"]["name"] == "DuckDB"
    assert {tag["key"]: tag["value"] for tag in facets["tags"]["tags"]}["dagster_run_id"] == RUN
    assert "parent" not in facets and "errorMessage" not in facets and "test" not in facets
    assert event["job"]["facets"]["jobType"]["integration"] == "DAGSTER"
    assert event["job"]["facets"]["documentation"]["description"] == "The shop."
    assert {tag["key"]: tag["value"] for tag in event["job"]["facets"]["tags"]["tags"]} == {
        "domain": "sales",
        "tier": "true",
    }


def test_a_run_that_continues_another_hangs_under_it() -> None:
    parent = said(product(root=ROOT_RUN).run_event(COMPLETE, WHEN))["run"]["facets"]["parent"]
    assert parent["run"]["runId"] == parent["root"]["run"]["runId"] == ROOT_RUN


def test_models_and_tests_hang_under_their_run() -> None:
    shop = product(root=ROOT_RUN)
    model, tests = (
        said(shop.asset_event(START, WHEN, ORDERS)),
        said(shop.tests_event(START, WHEN, ORDERS, [])),
    )
    for event, job in ((model, "shop.orders"), (tests, "shop.orders.tests")):
        assert (event["job"]["namespace"], event["job"]["name"]) == ("floe", job)
        parent = event["run"]["facets"]["parent"]
        assert parent["run"]["runId"] == RUN and parent["root"]["run"]["runId"] == ROOT_RUN
        assert (parent["job"]["namespace"], parent["job"]["name"]) == ("floe", "shop_run")
    assert model["run"]["runId"] == lineage_run_id(RUN, "model.shop.orders") != tests["run"]["runId"]
    # Whoever tells it again, tells the same.
    assert said(shop.asset_event(START, WHEN, ORDERS)) == model


def test_a_time_of_any_zone_is_told_in_utc() -> None:
    elsewhere = WHEN.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert said(product().run_event(START, elsewhere))["eventTime"] == "2026-01-02T03:04:05.678901+00:00"


def test_a_model_says_who_owns_it_and_what_it_computes() -> None:
    facets = said(product().asset_event(START, WHEN, ORDERS, sql="select 1"))["job"]["facets"]
    assert (facets["sql"]["query"], facets["sql"]["dialect"]) == ("select 1", "duckdb")
    assert [owner["name"] for owner in facets["ownership"]["owners"]] == ["team:shop", "shop@example.com"]
    assert [tag["key"] for tag in facets["tags"]["tags"]] == ["gold", "nightly"]
    assert facets["documentation"]["description"] == "Orders, as they are paid."
    assert facets["sourceCodeLocation"]["url"] == "https://example.com/shop/models/orders.sql"
    assert (facets["jobType"]["integration"], facets["jobType"]["jobType"]) == ("DBT", "MODEL")
    bare = said(product(source=lambda path: None).asset_event(START, WHEN, DAILY))["job"]["facets"]
    assert set(bare) == {"jobType"}


def test_an_output_says_what_was_written() -> None:
    output = said(product().asset_event(COMPLETE, WHEN, ORDERS, outputs=[full_output()]))["outputs"][0]
    facets = output["facets"]
    assert [(f["name"], f["type"], f["ordinal_position"]) for f in facets["schema"]["fields"]] == [
        ("id", "BIGINT", 1),
        ("amount", "DECIMAL(18,2)", 2),
        ("now", "TIMESTAMP", 3),
    ]
    assert [f.get("description") for f in facets["schema"]["fields"]] == ["Key.", None, None]
    fields = facets["columnLineage"]["fields"]
    assert {c: [i["field"] for i in f["inputFields"]] for c, f in fields.items()} == {
        "id": ["id"],
        "amount": ["net", "tax"],
    }
    assert fields["id"]["inputFields"][0]["namespace"] == "s3://warehouse"
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 10
    assert facets["version"]["datasetVersion"] == "7712345678901234567"
    assert facets["lifecycleStateChange"]["lifecycleStateChange"] == "CREATE"
    assert facets["catalog"]["metadataUri"] == "https://catalog.example.com/api"
    assert [(tag["key"], tag["value"], tag.get("field")) for tag in facets["tags"]["tags"]] == [
        ("tier", "gold", None),
        ("pii", "true", "id"),
    ]


def test_a_view_is_no_iceberg_table() -> None:
    (view, overwritten, _) = said(every_event()["bare model COMPLETE"])["outputs"]
    assert view["facets"]["datasetType"]["datasetType"] == "VIEW"
    assert not {"catalog", "storage", "lifecycleStateChange", "version"} & set(view["facets"])
    assert "outputStatistics" not in view.get("outputFacets", {})
    assert overwritten["facets"]["lifecycleStateChange"]["lifecycleStateChange"] == "OVERWRITE"
    assert overwritten["outputFacets"]["outputStatistics"]["rowCount"] == 0


def test_tests_are_told_of_the_run_and_of_the_dataset() -> None:
    event = said(every_event()["tests FAIL"])
    told = event["run"]["facets"]["test"]["tests"]
    assert [(one["name"], one["status"], one["severity"], one["type"]) for one in told] == [
        ("not_null_orders_id", "pass", "error", "not_null"),
        ("unique_orders_id", "fail", "warn", "unique"),
        ("naming", "pass", "error", "policy:naming"),
    ]
    quality = event["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert [(one["assertion"], one["success"], one.get("column")) for one in quality] == [
        ("not_null", True, "id"),
        ("unique", False, "id"),
        ("policy:naming", True, None),
    ]
    assert event["run"]["facets"]["errorMessage"]["message"] == "no such table"


def test_texts_without_end_are_cut() -> None:
    event = said(product().asset_event(FAIL, WHEN, ORDERS, sql="x" * 200_000, error="y" * 20_000))
    assert len(event["job"]["facets"]["sql"]["query"]) == 100_000
    assert len(event["run"]["facets"]["errorMessage"]["message"]) == 8_000


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("s3://bucket/shop/orders", ("s3://bucket", "shop/orders")),
        ("s3a://bucket/shop/orders/", ("s3://bucket", "shop/orders")),
        ("s3n://bucket/shop/orders", ("s3://bucket", "shop/orders")),
        ("gs://bucket/a", ("gs://bucket", "a")),
        ("abfss://c@account.dfs.core.windows.net/a/b", ("abfss://c@account.dfs.core.windows.net", "a/b")),
        ("file:///var/floe/orders", ("file", "/var/floe/orders")),
        ("/var/floe/orders", ("file", "/var/floe/orders")),
    ],
)
def test_a_table_is_named_by_its_location(location: str, expected: tuple[str, str]) -> None:
    assert location_name(location) == expected


def test_a_table_is_also_what_catalog_and_engine_call_it() -> None:
    name = named("orders")
    assert (name.namespace, name.name) == ("s3://warehouse", "shop/orders")
    assert name.symlinks == (
        ("https://catalog.example.com/api", "shop.orders"),
        ("duckdb://shop.duckdb", "shop.main.orders"),
    )
    # The names do not depend on where this machine keeps its files.
    elsewhere = table_name(
        ORDERS,
        "shop",
        "s3://warehouse/shop/orders",
        REST,
        EngineNames.by_engine(duckdb_artifact("/other/shop.duckdb"), "shop")["duckdb"],
    )
    assert elsewhere == name and elsewhere.symlinks == name.symlinks
    assert relation_name(ORDERS, DUCKDB) == DatasetName("duckdb://shop.duckdb", "shop.main.orders")


def duckdb_artifact(path: str) -> CompiledArtifacts:
    profiles = {"shop": {"target": "floe", "outputs": {"floe": {"type": "duckdb", "path": path}}}}
    return artifact_of(plugins=None, dbt_profiles=profiles)


def artifact_of(**parts: Any) -> CompiledArtifacts:
    construct: Any = CompiledArtifacts.model_construct
    artifact: CompiledArtifacts = construct(**parts)
    return artifact


def test_on_an_engine_that_writes_the_catalog_a_published_table_is_called_as_others_call_it() -> None:
    compute = PluginRef(type="trino", config={"host": "trino.example.com", "port": 8443, "catalog": "floe"})
    plugins = ResolvedPlugins(compute=compute, orchestrator=PluginRef(type="dagster"))
    engine = EngineNames.by_engine(artifact_of(plugins=plugins), "shop")["trino"]
    orders = replace(ORDERS, relation=("floe", "floe_audit_shop", "orders"))
    namespace = "trino://trino.example.com:8443"
    name = table_name(orders, "shop", "s3://warehouse/shop/orders", REST, engine)
    assert name.symlinks[1] == (namespace, "floe.shop.orders")
    unpublished = relation_name(replace(orders, published=False), engine)
    assert unpublished == DatasetName(namespace, "floe.floe_audit_shop.orders")


def test_an_engine_that_a_newer_version_compiled_for_is_told_by_its_name() -> None:
    compute = PluginRef(type="spark", config={"session": "x"})
    found = ResolvedPlugins(compute=compute, orchestrator=PluginRef(type="dagster"))
    names = EngineNames.by_engine(artifact_of(plugins=found), "shop")
    assert names == {"spark": EngineNames("spark", "spark")}
    event = product().asset_event(START, WHEN, replace(ORDERS, engine="spark"), sql="select 1")
    assert said(event)["job"]["facets"]["sql"]["dialect"] == "spark"


def plugins(kind: str, config: dict[str, Any] | None, storage: str | None = "minio") -> ResolvedPlugins:
    return ResolvedPlugins(
        compute=PluginRef(type="duckdb"),
        orchestrator=PluginRef(type="dagster"),
        catalog=PluginRef(type=kind, config=config),
        storage=PluginRef(type=storage) if storage else None,
    )


@pytest.mark.parametrize(
    ("given_plugins", "expected"),
    [
        (None, CatalogNames("sql", "iceberg", None, None, "local")),
        (
            plugins("sql", {"uri": "sqlite:///x", "warehouse": "w"}),
            CatalogNames("sql", "iceberg", None, "w", "minio"),
        ),
        (
            plugins(
                "polaris", {"uri": "https://me:secret@p.example.com:8181/api/catalog/", "warehouse": "w"}
            ),
            CatalogNames(
                "polaris",
                "https://p.example.com:8181/api/catalog",
                "https://p.example.com:8181/api/catalog",
                "w",
                "minio",
            ),
        ),
        (plugins("rest", None, None), CatalogNames("rest", "iceberg", None, None, "local")),
    ],
)
def test_a_catalog_is_named_without_its_users(
    given_plugins: ResolvedPlugins | None, expected: CatalogNames
) -> None:
    assert CatalogNames.of_plugins(given_plugins) == expected


def test_column_lineage_leaves_out_what_has_no_name() -> None:
    found = column_inputs(
        {"id": [("raw", "id"), ("elsewhere", "id")], "now": []}, {"raw": named("raw_orders")}
    )
    assert found == {"id": [(named("raw_orders"), "id")], "now": []}


@settings(deadline=None, max_examples=50)
@given(text=st.text(max_size=50))
def test_any_text_arrives_as_it_is(text: str) -> None:
    event = product(description=text or None).run_event(FAIL, WHEN, error=text or None)
    read = said(event)
    if text:
        assert read["run"]["facets"]["errorMessage"]["message"] == text
        assert read["job"]["facets"]["documentation"]["description"] == text


def test_events_go_to_a_file_as_lines(home: FloeHome) -> None:
    config = ObservabilityConfig(lineage_transport="file", lineage_file="out/events.jsonl")
    events = list(every_event().values())
    for half in (events[:5], events[5:]):
        emitter = LineageEmitter("shop", config, home)
        for event in half:
            emitter.emit(event)
        assert emitter.flush()
        emitter.close()
    lines = (home.path / "out" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [said(event) for event in events]


APPEND = """
import sys
from pathlib import Path
from floe_dagster.home import FloeHome
from floe_dagster.observability.lineage.emitter import LineageEmitter
from floe_dagster.schemas.artifacts import ObservabilityConfig
from tests.unit.test_lineage_events import WHEN, product

emitter = LineageEmitter("shop", ObservabilityConfig(lineage_transport="file"), FloeHome(Path(sys.argv[1])))
shop = product()
for number in range(100):
    emitter.emit(shop.run_event("FAIL", WHEN, error=f"{sys.argv[2]} {number} " + "x" * 3_000))
"""


def test_processes_that_append_at_once_do_not_mix_their_lines(home: FloeHome) -> None:
    command = [sys.executable, "-c", APPEND, str(home.path)]
    both = [subprocess.Popen([*command, name], cwd=ROOT) for name in ("a", "b")]
    assert [process.wait() for process in both] == [0, 0]
    lines = (home.path / "lineage.jsonl").read_text().splitlines()
    told = [json.loads(line)["run"]["facets"]["errorMessage"]["message"].split()[:2] for line in lines]
    for name in ("a", "b"):
        assert [number for who, number in told if who == name] == [str(number) for number in range(100)]


def test_a_file_that_cannot_be_written_is_told_once(home: FloeHome, caplog: pytest.LogCaptureFixture) -> None:
    (home.path / "lineage.jsonl").mkdir(parents=True)
    emitter = LineageEmitter("shop", ObservabilityConfig(lineage_transport="file"), home)
    for _ in range(3):
        emitter.emit(product().run_event(START, WHEN))
    (told,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "observability.lineage.file" in told and "lineage.jsonl" in told


def test_events_on_the_console_leave_standard_output_alone(
    home: FloeHome, capsys: pytest.CaptureFixture[str]
) -> None:
    emitter = LineageEmitter("shop", ObservabilityConfig(lineage_transport="console"), home)
    emitter.emit(product().run_event(START, WHEN))
    out, err = capsys.readouterr()
    assert (out, json.loads(err)["run"]["runId"]) == ("", RUN)
    assert not home.path.exists()


@pytest.mark.parametrize(
    "config",
    [
        ObservabilityConfig(),
        ObservabilityConfig(lineage_transport="noop", lineage_endpoint="http://127.0.0.1:1"),
        ObservabilityConfig(lineage=False, lineage_endpoint="http://127.0.0.1:1"),
    ],
)
def test_whoever_wants_none_gets_none(home: FloeHome, config: ObservabilityConfig) -> None:
    emitter = LineageEmitter("shop", config, home)
    assert not emitter.enabled
    emitter.emit(product().run_event(START, WHEN))
    assert emitter.flush()
    emitter.close()
    assert not home.path.exists()


def test_a_token_is_sent_along(
    home: FloeHome, lineage: LineageReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINEAGE_KEY", "s3cret")
    config = ObservabilityConfig(lineage_endpoint=lineage.url, lineage_api_key={"env": "LINEAGE_KEY"})
    emitter = LineageEmitter("shop", config, home)
    emitter.emit(product().run_event(START, WHEN))
    assert emitter.flush()
    emitter.close()
    assert lineage.received()[0].headers["authorization"] == "Bearer s3cret"


def test_events_wait_while_the_backend_is_away_and_two_products_stay_apart(
    home: FloeHome, lineage: LineageReceiver
) -> None:
    lineage.mode = FaultMode.BLACK_HOLE
    config = ObservabilityConfig(lineage_endpoint=lineage.url)
    begun = time.monotonic()
    for slug in ("shop", "bank"):
        emitter = LineageEmitter(slug, config, home)
        for number in range(10):
            emitter.emit(product(run_id=str(uuid.UUID(int=number)), slug=slug).run_event(START, WHEN))
        assert not emitter.flush()
        emitter.close()
    assert time.monotonic() - begun < 4
    assert {path.name for path in (home.path / "outbox").iterdir()} == {"shop", "bank"}
    lineage.stop_listening()


@pytest.mark.parametrize("name", sorted(every_event()))
def test_an_event_is_written_as_the_openlineage_client_writes_it(name: str) -> None:
    event = every_event()[name]
    assert json.loads(encode_event(event)) == json.loads(Serde.to_json(event))


@pytest.mark.parametrize("text", ["half \ud800 of a pair", "\x00", "line\u2028separator", "ümläut"])
def test_no_text_keeps_an_event_from_being_written(text: str) -> None:
    event = product().run_event(FAIL, WHEN, error=text)
    assert json.loads(encode_event(event)) == json.loads(Serde.to_json(event))
