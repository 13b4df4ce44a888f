"""Attempts and re-executions, several products, several runs: every id is told once, and what belongs together hangs together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.integration.observing.observed import (
    Project,
    lineage_to,
    make_product,
    names_below,
    project,
    tracing,
    tree_of,
)
from tests.jobs import execute_job, reconstructable_shop_job
from tests.receivers import LineageReceiver, OtlpReceiver

pytestmark = pytest.mark.slow

IN_PROCESS: dict[str, Any] = {"execution": {"config": {"in_process": {}}}}


@dataclass
class Seen:
    project: Project
    product: Path
    otlp: OtlpReceiver
    lineage: LineageReceiver

    def block(self) -> Path:
        """Put a file where the mart's folder has to be: the disk refuses this one table."""
        place = self.project.home.warehouse_dir / "shop" / "mart_customers"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("in the way")
        return place

    def events(self, job: str, run_id: str) -> list[dict[str, Any]]:
        wanted = {"key": "dagster_run_id", "value": run_id}
        return [
            event
            for event in self.lineage.events()
            if event["job"]["name"] == job
            if any(wanted.items() <= tag.items() for tag in event["run"]["facets"]["tags"]["tags"])
        ]


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Seen]:
    with OtlpReceiver() as otlp, LineageReceiver() as lineage, project(tmp_path) as made:
        yield Seen(made, make_product(tmp_path, tracing(otlp), lineage_to(lineage)), otlp, lineage)


def test_a_second_attempt_has_a_span_of_its_own_and_the_same_lineage_runs(seen: Seen) -> None:
    place = seen.block()

    def clear() -> None:
        # A run that fails before it publishes anything must not keep the test waiting for ever.
        deadline = time.monotonic() + 120
        while not (place.parent / "stg_orders").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2)
        place.unlink()

    thread = threading.Thread(target=clear, daemon=True)
    thread.start()
    ran = seen.project.run(seen.product)
    thread.join(150)
    assert ran.success and any(event.is_step_up_for_retry for event in ran.all_events)
    tree = tree_of(seen.otlp, ran.run_id)
    assert tree.root.attributes["floe.dagster.status"] == "COMPLETE"
    first = tree.one("step shop_dbt", floe__dagster__attempt=0)
    second = tree.one("step shop_dbt", floe__dagster__attempt=1)
    assert first.status == "ERROR" and second.status == "UNSET"
    assert "model stg_orders" in names_below(tree, first)
    assert "model stg_orders" not in names_below(tree, second)
    assert "publish shop.mart_customers" in names_below(tree, second)
    staging = [event["eventType"] for event in seen.events("shop.stg_orders", ran.run_id)]
    assert staging == ["START", "COMPLETE"]
    mart = seen.events("shop.mart_customers", ran.run_id)
    assert len({event["run"]["runId"] for event in mart}) == 1
    assert [event["eventType"] for event in mart] == ["START", "FAIL", "START", "COMPLETE"]
    run = seen.events("shop_run", ran.run_id)
    assert [event["eventType"] for event in run if event["eventType"] != "START"] == ["COMPLETE"]
    starts = [event for event in run if event["eventType"] == "START"]
    assert all(event == starts[0] for event in starts)
    retries = [p for p in seen.otlp.metrics() if p.name == "floe.retries"]
    assert {(p.attributes.get("floe.kind"), p.value) for p in retries} == {("step", 1)}


def test_a_re_execution_goes_on_in_the_trace_of_the_run_that_failed(
    seen: Seen,
) -> None:
    place = seen.block()
    job = reconstructable_shop_job(seen.product, seen.project.home)
    instance = seen.project.instance
    with execute_job(job, instance=instance, run_config=IN_PROCESS) as first:
        assert not first.success
    place.unlink()
    options = dg.ReexecutionOptions.from_failure(first.run_id, instance)
    with execute_job(job, instance=instance, run_config=IN_PROCESS, reexecution_options=options) as second:
        assert second.success
    tree = tree_of(seen.otlp, second.run_id)
    assert tree.root.attributes["floe.dagster.run_id"] == first.run_id
    assert tree.root.attributes["floe.dagster.status"] == "FAIL"
    again = tree.one("run shop_run", floe__dagster__run_id=second.run_id)
    assert tree.parent(again) == tree.root
    assert again.attributes["floe.dagster.status"] == "COMPLETE"
    attempts = [span for span in tree.named("step shop_dbt") if tree.parent(span) == tree.root]
    assert [span.attributes["floe.dagster.attempt"] for span in attempts] == [0, 1, 2]

    (ended,) = [e for e in seen.events("shop_run", second.run_id) if e["eventType"] == "COMPLETE"]
    parent = ended["run"]["facets"]["parent"]
    assert ended["run"]["runId"] == second.run_id
    assert parent["run"]["runId"] == parent["root"]["run"]["runId"] == first.run_id
    (mart,) = [e for e in seen.events("shop.mart_customers", second.run_id) if e["eventType"] == "COMPLETE"]
    assert mart["run"]["facets"]["parent"]["run"]["runId"] == second.run_id
    assert mart["run"]["facets"]["parent"]["root"]["run"]["runId"] == first.run_id
    # Nothing that stands is told again.
    assert seen.events("shop.stg_orders", second.run_id) == []
    assert seen.project.snapshot("shop.mart_customers")[1]["floe.trace-id"] == tree.root.trace_id


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Two products that tell different receivers, run one after the other and then in one run."""
    folder = tmp_path_factory.mktemp("two")
    with (
        OtlpReceiver() as otlp,
        OtlpReceiver() as other_otlp,
        LineageReceiver() as lineage,
        LineageReceiver() as other_lineage,
        project(folder) as made,
    ):
        shop = make_product(folder, tracing(otlp), lineage_to(lineage))
        store = make_product(folder, tracing(other_otlp, "http"), lineage_to(other_lineage), slug="store")
        # Somebody else's job, that says nothing of assets when it is asked for as a whole.
        nightly = dg.define_asset_job("nightly", selection=dg.AssetSelection.all())
        both = dg.Definitions.merge(
            made.definitions(shop), made.definitions(store), dg.Definitions(jobs=[nightly])
        )
        runs = {
            slug: both.resolve_job_def(f"{slug}_run").execute_in_process(instance=made.instance)
            for slug in ("shop", "store")
        }
        keys = [
            dg.AssetKey([slug, name])
            for slug in ("shop", "store")
            for name in ("raw_orders", "stg_orders", "mart_customers")
        ]
        shared = both.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=made.instance, asset_selection=keys
        )
        whole = both.resolve_job_def("nightly").execute_in_process(instance=made.instance)
        for ran in (shared, whole):
            run_sensors(both, made.instance, ran)
        yield {
            "runs": runs,
            "shared": shared,
            "whole": whole,
            "shop": (otlp, lineage),
            "store": (other_otlp, other_lineage),
            "project": made,
        }


def run_sensors(definitions: dg.Definitions, instance: dg.DagsterInstance, ran: Any) -> None:
    """Let the sensors of both products see a run that succeeded, twice."""
    end = next(event for event in ran.all_events if event.event_type_value == "PIPELINE_SUCCESS")
    for slug in ("shop", "store"):
        sensor = definitions.get_repository_def().get_sensor_def(f"{slug}_run_success")
        for _twice in range(2):
            run = instance.get_run_by_id(ran.run_id)
            assert run is not None
            sensor(
                dg.build_run_status_sensor_context(
                    sensor_name=sensor.name,
                    dagster_instance=instance,
                    dagster_run=run,
                    dagster_event=end,
                )
            )


def test_two_products_in_one_process_stay_apart(two: dict[str, Any]) -> None:
    for slug, other in (("shop", "store"), ("store", "shop")):
        otlp, lineage = two[slug]
        tree = tree_of(otlp, two["runs"][slug].run_id)
        assert len(tree.spans) == 18
        assert {span.resource["service.name"] for span in otlp.spans()} == {slug}
        assert {p.attributes.get("floe.product", slug) for p in otlp.metrics()} == {slug}
        assert {event["job"]["namespace"] for event in lineage.events()} == {slug}
        # What both are part of names its job, which is neither's.
        of_both = (two["shared"].run_id, two["whole"].run_id)
        own = [e for e in lineage.events() if not any(run_id in repr(e) for run_id in of_both)]
        told = repr((otlp.spans(), own))
        assert f"{other}_run" not in told and f"{other}.main" not in told


@pytest.mark.parametrize("asked_for", ["shared", "whole"])
def test_one_run_of_two_products_is_a_tree_and_a_lineage_run_for_each(
    two: dict[str, Any], asked_for: str
) -> None:
    run_id = two[asked_for].run_id
    run = two["project"].instance.get_run_by_id(run_id)
    assert bool(run.asset_selection) == (asked_for == "shared")
    for slug in ("shop", "store"):
        otlp, lineage = two[slug]
        tree = tree_of(otlp, run_id)
        name = f"{slug}_assets" if asked_for == "shared" else "nightly"
        assert tree.root.name == f"run {name}"
        assert set(names_below(tree, tree.root)) == {"launch", f"step {slug}_dbt"}
        lineage_id = tree.root.attributes["floe.openlineage.run_id"]
        assert lineage_id != run_id
        states = [e["eventType"] for e in lineage.events() if e["run"]["runId"] == lineage_id]
        assert states == ["START", "COMPLETE"]
        (mart,) = [
            e
            for e in lineage.events()
            if e["job"]["name"] == f"{slug}.mart_customers"
            if e["eventType"] == "COMPLETE" and run_id in repr(e)
        ]
        parent = mart["run"]["facets"]["parent"]
        assert parent["run"]["runId"] == parent["root"]["run"]["runId"] == lineage_id
        assert parent["job"]["name"] == name
    shop, store = (tree_of(two[slug][0], run_id).root for slug in ("shop", "store"))
    assert shop.span_id != store.span_id


def test_what_two_products_publish_in_one_run_names_the_run_of_each(two: dict[str, Any]) -> None:
    run_id = two["whole"].run_id
    for slug in ("shop", "store"):
        root = tree_of(two[slug][0], run_id).root
        properties = two["project"].snapshot(f"{slug}.mart_customers")[1]
        assert properties["floe.dagster-run-id"] == run_id
        assert properties["floe.openlineage-run-id"] == root.attributes["floe.openlineage.run_id"]
        assert properties["floe.trace-id"] == root.trace_id
