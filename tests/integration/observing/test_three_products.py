"""`dagster dev` on the three shipped products: an edit and a run of each, as one collector and one lineage backend see it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from floe_dagster.compilation.bundle import BAKED_BUNDLE
from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.home import FloeHome
from floe_dagster.schemas.product_index import ProductIndex
from tests.dagster_dev import DagsterDev
from tests.integration.observing.developing import copy_products, ended, launch, loaded, start, until
from tests.integration.observing.observed import (
    SECRET,
    SECRET_VARIABLE,
    lineage_to,
    names_below,
    tracing,
    tree_of,
)
from tests.receivers import LineageReceiver, OtlpReceiver

pytestmark = pytest.mark.slow

PRODUCTS = {
    "customer_360": "customer-360",
    "iot_telemetry": "iot-telemetry",
    "financial_risk": "financial-risk",
}
MARTS = {
    "customer_360": "mart_customer_360",
    "iot_telemetry": "mart_equipment_health",
    "financial_risk": "mart_risk_dashboard",
}
STAGES = ["LOAD", "VALIDATE", "RESOLVE", "ENFORCE", "COMPILE", "GENERATE"]


@dataclass
class Developed:
    """What came of an edit and of a run of every product."""

    dev: DagsterDev
    otlp: OtlpReceiver
    lineage: LineageReceiver
    indexes: dict[str, ProductIndex]
    compiled: str
    runs: dict[str, str]

    def events(self, run_id: str) -> list[dict[str, Any]]:
        return [
            event
            for event in self.lineage.events()
            if {"key": "dagster_run_id", "value": run_id}.items()
            <= next((tag for tag in event["run"]["facets"]["tags"]["tags"]), {}).items()
        ]


@pytest.fixture(scope="module")
def developed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Developed]:
    folder, home = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("home")
    with OtlpReceiver() as otlp, LineageReceiver() as lineage, pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECRET_VARIABLE, SECRET)
        copy_products(folder, list(PRODUCTS), {"tracing": tracing(otlp), "lineage": lineage_to(lineage)})
        indexes = {}
        for slug in PRODUCTS:
            # A location that serves nothing yet tells nobody; an image has its state baked in.
            result = compile_product(folder / "products" / slug, home=FloeHome(home / "floe"))
            assert result.index is not None and result.bundle_path is not None, result.findings
            indexes[slug] = result.index
            baked = folder / "products" / slug / "target" / BAKED_BUNDLE
            baked.parent.mkdir(exist_ok=True)
            shutil.copy(result.bundle_path, baked)
        dev = start(folder, home, patch)
        try:
            loaded(dev, *PRODUCTS.values())
            mart = folder / "products" / "customer_360" / "models" / "marts" / "_marts.yml"
            dev.until("a first tick", lambda: "customer_360/mart_customer_360" in dev.descriptions())
            mart.write_text(mart.read_text().replace("One row per customer with", "A row per customer with"))
            compiled = dev.until("the compilation", lambda: dev.runs("customer_360_compile"))[0]["id"]
            assert ended(dev, compiled) == "SUCCESS", dev.error_of(compiled)
            runs = {slug: launch(dev, name, f"{slug}_run") for slug, name in PRODUCTS.items()}
            for run_id in runs.values():
                assert ended(dev, run_id, 240) == "SUCCESS", dev.error_of(run_id)
            yield Developed(dev, otlp, lineage, indexes, compiled, runs)
        finally:
            dev.stop()


def test_an_edit_is_traced_from_the_tick_of_the_sensor_to_the_last_stage(developed: Developed) -> None:
    tree = until(developed.dev, "the trace", lambda: tree_of(developed.otlp, developed.compiled, 1))
    assert tree.root.name == "sensor customer_360_sources" and tree.root.kind == "PRODUCER"
    assert names_below(tree, tree.root) == ["run customer_360_compile"]
    run = tree.one("run customer_360_compile")
    assert run.kind == "CONSUMER" and run.attributes["floe.dagster.status"] == "COMPLETE"
    assert set(names_below(tree, run)) == {
        "launch",
        "step customer_360_compile_step",
        "step customer_360__platform_manifest_platform_health",
    }
    assert names_below(tree, tree.one("step customer_360_compile_step")) == ["compile"]
    stages = names_below(tree, tree.one("compile", floe__cache="miss"))
    assert [*dict.fromkeys(stages)] == [f"stage {name}" for name in STAGES]
    # The tick ran in the code server, the step in a worker.
    assert len({span.resource["process.pid"] for span in tree.spans}) >= 2


def test_a_run_of_each_product_is_a_whole_tree(developed: Developed) -> None:
    for slug, run_id in developed.runs.items():
        tree = tree_of(developed.otlp, run_id)
        index = developed.indexes[slug]
        assert tree.root.name == f"run {slug}_run", str(tree)
        assert set(names_below(tree, tree.root)) == {"launch", f"step {slug}_dbt"}
        step = tree.one(f"step {slug}_dbt")
        below = names_below(tree, step)
        nodes = {f"{asset.type} {asset.name}" for asset in index.assets}
        published = {asset.name for asset in index.assets if asset.published}
        assert nodes | {f"publish {slug}.{name}" for name in published} <= set(below), str(tree)
        seen = {
            span.attributes.get("floe.dbt.unique_id"): span.attributes.get("floe.dbt.status")
            for span in tree.children(step)
        }
        missing = set()
        for check in index.checks:
            if check.type == "unit_test" and check.id not in seen:
                # dbt's result of a unit test says neither when it began nor when it ended.
                missing.add(check.id)
            else:
                assert seen[check.id] in ("pass", "warn"), check
        tests = len(index.checks) - len(missing)
        assert len(below) == len(index.assets) + tests + len(published), str(tree)
        for name in published:
            publication = tree.one(f"publish {slug}.{name}")
            assert names_below(tree, publication)[-1] == "commit"
        assert all(span.resource["service.name"] == PRODUCTS[slug] for span in tree.spans)
        assert not [span for span in tree.spans if span.status == "ERROR"]


def test_no_run_is_told_twice(developed: Developed) -> None:
    # The sensors that close runs look at every one of them, and leave those that have told of their end.
    ids = [span.span_id for span in developed.otlp.spans()]
    assert len(ids) == len(set(ids))
    for run_id in (developed.compiled, *developed.runs.values()):
        for events in by_run(developed.events(run_id)).values():
            states = [event["eventType"] for event in events]
            starts = [event for event in events if event["eventType"] == "START"]
            assert states[0] == "START" and states[-1] == "COMPLETE", (events[0]["job"]["name"], states)
            assert states.count("COMPLETE") == 1 and "FAIL" not in states, (events[0]["job"]["name"], states)
            # Each step of the run says that it began, in the very same words.
            assert all(event == starts[0] for event in starts)


def by_run(events: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        found.setdefault(event["run"]["runId"], []).append(event)
    return found


def test_policies_of_a_compilation_are_told(developed: Developed) -> None:
    told = [
        {test["name"]: test["status"] for test in event["run"]["facets"]["test"]["tests"]}
        for event in developed.events(developed.compiled)
        if "test" in event["run"]["facets"]
    ]
    assert len(told) == 1 and told[0]["naming"] == "pass" and len(told[0]) >= 9


def test_the_graph_of_lineage_is_that_of_the_products(developed: Developed) -> None:
    for slug, run_id in developed.runs.items():
        index = developed.indexes[slug]
        ended = {
            event["job"]["name"]: event
            for event in developed.events(run_id)
            if event["eventType"] == "COMPLETE"
        }
        datasets = {
            asset.id: (out["namespace"], out["name"])
            for asset in index.assets
            for out in ended[f"{slug}.{asset.name}"]["outputs"]
        }
        assert len(set(datasets.values())) == len(index.assets)
        for asset in index.assets:
            event = ended[f"{slug}.{asset.name}"]
            read = {(one["namespace"], one["name"]) for one in event["inputs"]}
            assert read == {datasets[key] for key in asset.deps}, asset.name
            namespace, name = datasets[asset.id]
            if asset.published:
                assert namespace == "file" and name.endswith(f"/{slug}/{asset.name}")
            else:
                assert namespace == f"duckdb://{slug}.duckdb"
        assert f"{slug}_run" in ended
        tested = {check.asset for check in index.checks}
        names = {asset.name for asset in index.assets if asset.id in tested}
        assert {f"{slug}.{name}.tests" for name in names} <= ended.keys()


def test_columns_of_marts_come_from_seeds(developed: Developed) -> None:
    for slug, run_id in developed.runs.items():
        sources: dict[tuple[str, str, str], set[tuple[str, str, str]]] = {}
        for event in developed.events(run_id):
            for output in event["outputs"]:
                lineage = output["facets"].get("columnLineage", {"fields": {}})
                for column, found in lineage["fields"].items():
                    sources[output["namespace"], output["name"], column] = {
                        (one["namespace"], one["name"], one["field"]) for one in found["inputFields"]
                    }
        seeds = seeds_above(developed.indexes[slug], MARTS[slug])
        reached = set()
        for column in [column for column in sources if column[1].endswith(f"/{MARTS[slug]}")]:
            todo, met = [column], set()
            while todo:
                one = todo.pop()
                if one not in met:
                    met.add(one)
                    todo += sources.get(one, ())
            reached |= {
                name.rpartition(".")[2] for namespace, name, _ in met if namespace.startswith("duckdb:")
            }
        assert seeds and reached == seeds, (slug, reached)


def seeds_above(index: ProductIndex, name: str) -> set[str]:
    assets = index.assets_by_id()
    todo = [asset for asset in index.assets if asset.name == name]
    found = set()
    while todo:
        asset = todo.pop()
        todo += [assets[key] for key in asset.deps]
        if asset.type == "seed":
            found.add(asset.name)
    return found


def test_nothing_secret_and_nobody_leaves(developed: Developed) -> None:
    said = repr((developed.otlp.spans(), developed.otlp.metrics(), developed.lineage.events()))
    for marker in (SECRET, "dalia.okoye1@example.com", "DE19995504804670568250", "López Capital"):
        assert marker not in said
    assert {request.headers["authorization"] for request in developed.otlp.requests()} == {SECRET}
    assert SECRET not in developed.dev.output
    assert "Traceback" not in developed.dev.output


def test_metrics_of_every_product_arrive(developed: Developed) -> None:
    for slug in PRODUCTS:
        points = [p for p in developed.otlp.metrics() if p.attributes.get("floe.product") == slug]
        names = {point.name for point in points}
        assert names >= {
            "floe.publication.rows",
            "floe.publication.bytes",
            "floe.publication.duration",
            "floe.model.duration",
            "floe.run.duration",
            "floe.checks",
        }
