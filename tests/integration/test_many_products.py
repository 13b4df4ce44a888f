"""More products than may run at once, in a real `dagster dev`: limits, turns, and slots of workers that were killed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from floe_dagster.definitions.queue.tags import CATALOG_TAG, PRODUCT_TAG, engine_tag
from tests.many_products import (
    CHEAP,
    ManyProducts,
    SeenRun,
    limits,
    most_at_once,
    most_of_each,
    overtaken,
    served,
)
from tests.processes import command_of, dbt_below, parent_of, runs, wait_for

PRODUCTS, EXTRA = 6, 3
ENGINE, CATALOG = 3, 2
FREED_SECONDS = 5
PATIENCE_SECONDS = 60
"""For what takes a few seconds on a machine with nothing else to do."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyProducts]:
    folder, home = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("home")
    monitoring = {"poll_interval_seconds": 2, "free_slots_after_run_end_seconds": FREED_SECONDS}
    with served(folder, home, PRODUCTS, limits(engine=ENGINE, catalog=CATALOG), **monitoring) as running:
        yield running


@pytest.fixture(scope="module")
def finished(many: ManyProducts) -> list[SeenRun]:
    first, *others = many.products
    ids = [many.launch(first, **CHEAP) for _time in range(1 + EXTRA)]
    # Without the job, as from the page of an asset: the queue gives it the job's tags.
    ids.append(many.launch(first, job="__ASSET_JOB", **CHEAP))
    ids += [many.launch(product, **CHEAP) for product in others]
    ended = many.ends(ids, 600)
    assert {run.id for run in many.runs()} == {*ids}, "nothing else was launched or tried again"
    return ended


def test_all_runs_come_to_their_end(finished: list[SeenRun]) -> None:
    assert {run.status for run in finished} == {"SUCCESS"}
    assert len(finished) == PRODUCTS + EXTRA + 1


def test_no_limit_is_passed_and_each_is_reached(many: ManyProducts, finished: list[SeenRun]) -> None:
    assert most_of_each(finished, lambda run: run.tags[engine_tag("duckdb")]) == {"true": ENGINE}
    catalogs = {product.catalog for product in many.products}
    assert most_of_each(finished, lambda run: run.tags[CATALOG_TAG]) == dict.fromkeys(catalogs, CATALOG)
    products = {product.slug for product in many.products}
    assert most_of_each(finished, lambda run: run.tags[PRODUCT_TAG]) == dict.fromkeys(products, 1)
    # What computes is no more than what was launched: nobody waits in a worker.
    assert most_at_once(step for run in finished for step in run.steps) <= ENGINE


def test_a_product_with_many_runs_goes_before_no_other_one(finished: list[SeenRun]) -> None:
    pairs, compared = overtaken(finished, 10)
    assert compared and not pairs


def test_a_killed_worker_gives_its_slot_back(many: ManyProducts, finished: list[SeenRun]) -> None:
    product = many.products[0]
    slow = {"ops": {f"{product.slug}_dbt": {"config": {"vars": {"slow": True}}}}}
    first = many.launch(product, **slow)
    dbt = many.dev.until("dbt", lambda: dbt_below(os.getpid()), 90)
    second = many.launch(product)
    time.sleep(2 * FREED_SECONDS)
    (waiting,) = (run for run in many.runs() if run.id == second)
    assert waiting.status == "QUEUED" and waiting.launched is None
    killed = time.time()
    for pid in _workers_of(dbt):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for("the end of dbt", lambda: not runs(dbt), 60)
    ends = {run.id: run for run in many.ends([first, second], 300)}
    assert (ends[first].status, ends[second].status) == ("FAILURE", "SUCCESS")
    noticed, launched = ends[first].held[1], ends[second].held[0]
    assert noticed < killed + PATIENCE_SECONDS
    # While the slot was not given back the next run waited in the queue, and not in a worker that waits for the slot.
    assert noticed + FREED_SECONDS <= launched < noticed + FREED_SECONDS + PATIENCE_SECONDS


def _workers_of(dbt: int) -> list[int]:
    """Return the processes between dbt and the code server: its step and the run's worker."""
    found, pid = [], parent_of(dbt)
    while not {"grpc", "code-server"} & set(command_of(pid)):
        found.append(pid)
        pid = parent_of(pid)
    return found
