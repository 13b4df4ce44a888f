"""Where telemetry and lineage may go beside receivers, what is sampled, and the links from Dagster's pages."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.observing.process import is_observed
from tests.integration.observing.observed import (
    PERSON,
    end_process,
    lineage_to,
    make_product,
    project,
    tracing,
    tree_of,
)
from tests.receivers import LineageReceiver, OtlpReceiver

pytestmark = pytest.mark.slow

EVENTS = 12


def test_the_console_gets_both_on_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with project(tmp_path) as made:
        ran = made.run(make_product(tmp_path, {"exporter": "console"}, {"transport": "console"}))
        assert ran.success
    printed = capfd.readouterr()
    events = [json.loads(line) for line in printed.err.splitlines() if line.startswith('{"eventTime"')]
    assert len(events) == EVENTS
    assert '"name": "publish shop.mart_customers"' in printed.err
    assert "floe.publication.rows" in printed.err
    for only_error in ('"eventTime"', "publish shop.mart_customers"):
        assert only_error not in printed.out
    assert PERSON not in printed.err
    assert not (made.home.path / "outbox").exists()


def test_a_file_gets_an_event_a_line_and_none_exports_no_span(tmp_path: Path) -> None:
    with project(tmp_path) as made:
        product = make_product(
            tmp_path, {"exporter": "none"}, {"transport": "file", "file": "told/events.jsonl"}
        )
        assert made.run(product).success and made.run(product).success
        lines = (made.home.path / "told" / "events.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        assert len(events) == 2 * EVENTS
        assert len({event["run"]["runId"] for event in events}) == EVENTS
        tags = {tag["key"] for event in events for tag in event["run"]["facets"]["tags"]["tags"]}
        assert tags == {"dagster_run_id", "dagster_job"}
        assert "floe.trace-id" not in made.snapshot("shop.mart_customers")[1]
        assert not (made.home.path / "outbox").exists()


def test_nobody_is_told_where_the_manifest_names_nobody(tmp_path: Path) -> None:
    with project(tmp_path) as made:
        product = make_product(tmp_path, None, None)
        result = compile_product(product, home=made.home)
        assert result.artifact is not None and not is_observed(result.artifact.observability)
        sensors = made.definitions(product).get_repository_def().sensor_defs
        assert sensors == []
        ran = made.run(product)
        assert ran.success
        assert not {"traceparent", "floe/observed.shop"} & made.tags(ran.run_id).keys()
        properties = made.snapshot("shop.mart_customers")[1]
        assert not {"floe.trace-id", "floe.openlineage-run-id"} & properties.keys()
        assert not (made.home.path / "outbox").exists() and not list(made.home.path.glob("*.jsonl"))


def test_sampling_follows_the_environment_and_links_lead_from_materializations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OtlpReceiver() as otlp, LineageReceiver() as lineage, project(tmp_path) as made:
        product = make_product(
            tmp_path,
            tracing(
                otlp,
                sampling={"dev": 1.0, "staging": 1.0, "prod": 0.0},
                trace_url="https://traces.example.com/trace/{trace_id}",
            ),
            lineage_to(lineage, dataset_url="https://lineage.example.com/{namespace}/{name}"),
        )
        monkeypatch.setenv("FLOE_ENVIRONMENT", "prod")
        unsampled = made.run(product)
        assert unsampled.success
        end_process()
        assert otlp.spans() == [] and otlp.metrics()
        assert made.tags(unsampled.run_id)["traceparent"].endswith("-00")
        assert len(lineage.events()) == EVENTS

        monkeypatch.setenv("FLOE_ENVIRONMENT", "staging")
        sampled = made.run(product)
        tree = tree_of(otlp, sampled.run_id)
        assert {span.resource["deployment.environment.name"] for span in tree.spans} == {"staging"}
        assert made.tags(sampled.run_id)["traceparent"].endswith("-01")
        made_of = {
            event.asset_key.path[-1]: event.metadata
            for event in sampled.asset_materializations_for_node("shop_dbt")
        }
        location = made.snapshot("shop.mart_customers")[2].removeprefix("file://")
        mart = made_of["mart_customers"]
        assert mart["floe/trace"].value == f"https://traces.example.com/trace/{tree.root.trace_id}"
        assert mart["floe/lineage"].value == f"https://lineage.example.com/file/{quote(location, safe='')}"
        seed = made_of["raw_orders"]["floe/lineage"].value
        assert (
            seed
            == f"https://lineage.example.com/{quote('duckdb://shop.duckdb', safe='')}/shop.main.raw_orders"
        )
