"""`dagster dev`: runs of several steps, runs whose worker is killed, and runs that are canceled have one end each."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from floe_dagster.home import FloeHome
from tests.dagster_dev import DagsterDev
from tests.integration.observing.developing import (
    HELD,
    TERMINATE,
    ended,
    launch,
    loaded,
    start,
    status,
    tags,
    until,
)
from tests.integration.observing.observed import (
    SECRET,
    SECRET_VARIABLE,
    lineage_to,
    make_product,
    names_below,
    tracing,
    tree_of,
)
from tests.locations import DEFINITIONS, bake
from tests.processes import dbt_below, family, parent_of, runs, wait_for
from tests.receivers import LineageReceiver, OtlpReceiver

pytestmark = pytest.mark.slow

WORKSPACE = """\
load_from:
  - python_module: {module_name: shop.definitions, working_directory: ., location_name: shop}
"""
SLOW = """\
select count(*) {% if var('slow', false) %} + max(length(content)) {% endif %} as n
from {{ ref('stg_orders') }}
{% if var('slow', false) %} cross join read_text('FIFO') {% endif %}
"""
"""Reads a FIFO that nobody writes: it waits, and costs nothing."""
COMPILE = ["platform_manifest", "resolved_governance", "compiled_artifacts", "dbt_manifest"]
MODELS = ["raw_orders", "stg_orders", "mart_customers", "mart_slow"]
SLOWLY: dict[str, Any] = {"ops": {"shop_dbt": {"config": {"vars": {"slow": True}}}}}


@dataclass
class Developed:
    dev: DagsterDev
    otlp: OtlpReceiver
    lineage: LineageReceiver
    fifo: Path

    def events(self, run_id: str) -> list[dict[str, Any]]:
        wanted = {"key": "dagster_run_id", "value": run_id}
        return [
            event
            for event in self.lineage.events()
            if any(wanted.items() <= tag.items() for tag in event["run"]["facets"]["tags"]["tags"])
        ]

    def states(self, run_id: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for event in self.events(run_id):
            found.setdefault(event["job"]["name"], []).append(event["eventType"])
        return found

    def slow_run(self) -> str:
        """Ask for a run and return its id once its last model computes."""
        run_id = launch(self.dev, "shop", "shop_run", **SLOWLY)
        until(self.dev, "the slow model", lambda: "START" in self.states(run_id).get("shop.mart_slow", ()))
        return run_id

    def end_of(self, run_id: str, state: str) -> None:
        until(
            self.dev,
            "the last event",
            lambda: state in self.states(run_id).get("shop_run", ()) and tree_of(self.otlp, run_id, 1),
        )


@pytest.fixture(scope="module")
def developed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Developed]:
    folder, home = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("home")
    with OtlpReceiver() as otlp, LineageReceiver() as lineage, pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECRET_VARIABLE, SECRET)
        product = make_product(folder, tracing(otlp), lineage_to(lineage))
        os.mkfifo(folder / "fifo")
        (product / "models" / "marts" / "mart_slow.sql").write_text(
            SLOW.replace("FIFO", str(folder / "fifo"))
        )
        (folder / "workspace.yaml").write_text(WORKSPACE)
        (product / "__init__.py").touch()
        (product / "definitions.py").write_text(DEFINITIONS)
        bake(product, FloeHome(home / "floe"))
        dev = start(folder, home, patch, poll_interval_seconds=2, free_slots_after_run_end_seconds=2)
        try:
            loaded(dev, "shop")
            yield Developed(dev, otlp, lineage, folder / "fifo")
        finally:
            dev.stop()


@pytest.fixture(scope="module")
def killed(developed: Developed) -> str:
    run_id = developed.slow_run()
    step = until(developed.dev, "the step's process", lambda: process_of(developed, run_id))
    # What is delivered and not yet noted as such would be delivered again.
    time.sleep(2)
    dbt = dbt_below(step)
    assert dbt is not None
    # The worker and its step; dbt is left to notice.
    for pid in family(parent_of(step)):
        if pid != dbt:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    wait_for("the end of dbt", lambda: not runs(dbt), 60)
    assert ended(developed.dev, run_id) == "FAILURE"
    developed.end_of(run_id, "FAIL")
    return run_id


def process_of(developed: Developed, run_id: str) -> int | None:
    for span in developed.otlp.spans():
        if span.attributes.get("floe.dagster.run_id") == run_id:
            return int(span.resource["process.pid"])
    return None


@pytest.fixture(scope="module")
def canceled(developed: Developed, killed: str) -> str:
    run_id = developed.slow_run()
    step = until(developed.dev, "the step's process", lambda: process_of(developed, run_id))
    dbt = dbt_below(step)
    assert dbt is not None
    developed.dev.graphql(TERMINATE, id=run_id)
    # It waits for the FIFO, so it does not notice that it is asked to end.
    assert ended(developed.dev, run_id) == "CANCELED"
    assert not runs(dbt)
    developed.end_of(run_id, "ABORT")
    return run_id


@pytest.fixture(scope="module")
def canceled_early(developed: Developed) -> str:
    run_id = launch(developed.dev, "shop", "shop_run", tags=HELD)
    until(developed.dev, "the queue", lambda: status(developed.dev, run_id) == "QUEUED")
    developed.dev.graphql(TERMINATE, id=run_id)
    assert ended(developed.dev, run_id) == "CANCELED"
    developed.end_of(run_id, "ABORT")
    return run_id


@pytest.fixture(scope="module")
def several_steps(developed: Developed, canceled: str) -> str:
    keys = [f"shop/{name}" for name in (*COMPILE, *MODELS)]
    run_id = launch(developed.dev, "shop", "__ASSET_JOB", keys)
    assert ended(developed.dev, run_id) == "SUCCESS", developed.dev.error_of(run_id)
    until(
        developed.dev,
        "the end",
        lambda: (
            "COMPLETE" in developed.states(run_id).get("shop_assets", ())
            and tree_of(developed.otlp, run_id, 1)
        ),
    )
    return run_id


def test_a_run_whose_worker_is_killed_is_one_tree_that_says_so(developed: Developed, killed: str) -> None:
    tree = tree_of(developed.otlp, killed)
    assert tree.root.name == "run shop_run" and tree.root.status == "ERROR"
    assert tree.root.attributes["floe.dagster.status"] == "FAIL"
    step = tree.one("step shop_dbt")
    assert step.status == "ERROR" and step.attributes["error.type"] == "worker_lost"
    # What was done before is told by whoever did it, and hangs under the span that another process ends.
    assert "seed raw_orders" in names_below(tree, step)
    assert tree.one("seed raw_orders").resource["process.pid"] != step.resource["process.pid"]
    assert tree.one("seed raw_orders").resource["service.name"] == step.resource["service.name"] == "shop"


def test_a_run_whose_worker_is_killed_leaves_no_open_lineage_run(developed: Developed, killed: str) -> None:
    states = developed.states(killed)
    assert states["shop_run"] == ["START", "FAIL"]
    assert states["shop.mart_slow"] == ["START", "ABORT"]
    for job, seen in states.items():
        assert seen[-1] in ("FAIL", "ABORT", "COMPLETE"), (job, seen)
    (of_run,) = [event for event in developed.events(killed) if event["eventType"] == "FAIL"]
    assert of_run["run"]["facets"]["errorMessage"]["message"]
    assert any(key.startswith("floe/observed") for key in tags(developed.dev, killed))


def test_a_canceled_run_is_one_tree_that_says_so(developed: Developed, canceled: str) -> None:
    tree = tree_of(developed.otlp, canceled)
    assert tree.root.attributes["floe.dagster.status"] == "ABORT"
    assert tree.root.attributes["error.type"] == "canceled"
    step = tree.one("step shop_dbt")
    assert step.status == "ERROR" and step.attributes["error.type"] == "interrupted"
    states = developed.states(canceled)
    assert states["shop_run"] == ["START", "ABORT"]
    assert states["shop.mart_slow"] == ["START", "ABORT"]
    assert all(seen[-1] != "START" for seen in states.values()), states


def test_a_run_that_is_canceled_in_the_queue_has_an_end_and_nothing_else(
    developed: Developed, canceled_early: str
) -> None:
    tree = tree_of(developed.otlp, canceled_early)
    assert [span.name for span in tree.spans] == ["run shop_run"]
    assert tree.root.attributes["floe.dagster.status"] == "ABORT"
    assert tree.root.attributes["error.type"] == "canceled"
    assert tree.root.start < tree.root.end
    assert developed.states(canceled_early) == {"shop_run": ["ABORT"]}
    assert any(key.startswith("floe/observed") for key in tags(developed.dev, canceled_early))


def test_a_run_of_several_steps_is_one_tree(developed: Developed, several_steps: str) -> None:
    tree = tree_of(developed.otlp, several_steps)
    assert tree.root.name == "run shop_assets" and tree.root.attributes["floe.dagster.status"] == "COMPLETE"
    assert {"launch", "step shop_compile_step", "step shop_dbt"} <= set(names_below(tree, tree.root))
    assert "publish shop.mart_slow" in names_below(tree, tree.one("step shop_dbt"))
    states = developed.states(several_steps)
    assert states["shop_assets"].count("COMPLETE") == 1 and states["shop_assets"][-1] == "COMPLETE"
    assert states["shop.mart_slow"] == ["START", "COMPLETE"]


def test_every_run_has_one_end(developed: Developed, several_steps: str, canceled_early: str) -> None:
    ids = [span.span_id for span in developed.otlp.spans()]
    assert len(ids) == len(set(ids))
    for run_id, events in developed.lineage.runs().items():
        ends = [event["eventType"] for event in events if event["eventType"] in ("COMPLETE", "FAIL", "ABORT")]
        assert len(ends) == 1, (run_id, events[0]["job"]["name"], ends)
