"""What the last run of a model came to, asked of Dagster's own instance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest

from floe_dagster.definitions.last_runs import last_run
from floe_dagster.definitions.outcomes import as_failures
from floe_dagster.execution.withheld import Withheld

ORDERS, DAILY = dg.AssetKey(["shop", "orders"]), dg.AssetKey(["shop", "daily"])
ASSETS = {
    "orders": {"name": "orders", "deps": []},
    "daily": {"name": "daily", "deps": ["orders"]},
}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def run(
    instance: dg.DagsterInstance, body: Callable[[], Iterator[Any]], *selected: dg.AssetKey, job: bool = True
) -> None:
    """Run the product's job, or its assets without one."""

    @dg.multi_asset(
        name="shop_dbt",
        specs=[dg.AssetSpec(ORDERS, skippable=True), dg.AssetSpec(DAILY, skippable=True)],
        can_subset=True,
    )
    def shop_dbt() -> Iterator[Any]:
        yield from body()

    definitions = dg.Definitions(
        assets=[shop_dbt], jobs=[dg.define_asset_job("shop_run", selection=[shop_dbt])]
    )
    ran = (
        definitions.resolve_job_def("shop_run")
        if job
        # As the UI asks for assets.
        else definitions.resolve_implicit_global_asset_job_def()
    )
    ran.execute_in_process(instance=instance, raise_on_error=False, asset_selection=list(selected) or None)


def published(snapshot: str | None) -> Callable[[], Iterator[Any]]:
    metadata = {"iceberg/snapshot_id": snapshot} if snapshot else {}
    return lambda: iter([dg.MaterializeResult(asset_key=ORDERS, metadata=metadata)])


def refused() -> Iterator[Any]:
    withheld = Withheld(ASSETS)
    withheld.add({"orders": "test unique_orders_id failed"}, {"orders", "daily"})
    withheld.from_now_on({"orders", "daily"})
    failure = withheld.failure()
    assert failure is not None
    with as_failures("the run of shop could not go on"):
        raise failure
    yield


def broken() -> Iterator[Any]:
    raise dg.Failure("the catalog does not answer\nat all", allow_retries=False)
    yield


def told(instance: dg.DagsterInstance, model: str = "orders") -> str:
    found = last_run(instance, "shop", model)
    assert found is not None
    return found.told()


def test_no_run_is_known(instance: dg.DagsterInstance) -> None:
    assert last_run(instance, "shop", "orders") is None
    run(instance, published("7"))
    assert last_run(instance, "store", "orders") is None


def test_a_run_that_withheld_the_table_says_why(instance: dg.DagsterInstance) -> None:
    run(instance, refused)
    assert "did not publish it: test unique_orders_id failed" in told(instance)
    assert "did not publish it: it reads orders, which was withheld" in told(instance, "daily")


def test_a_run_that_failed_altogether_says_why_in_a_line(instance: dg.DagsterInstance) -> None:
    run(instance, broken)
    assert told(instance).endswith("did not publish it: the catalog does not answer")


def test_a_run_that_went_well_without_a_table(instance: dg.DagsterInstance) -> None:
    run(instance, published(None))
    assert "it was no table then" in told(instance)


def test_a_table_that_was_published_and_is_gone(instance: dg.DagsterInstance) -> None:
    run(instance, published("4711"))
    assert "published it as snapshot 4711" in told(instance)
    # Of this model the run said nothing.
    assert "it was no table then" in told(instance, "daily")


def test_the_newest_run_counts_with_and_without_a_job(instance: dg.DagsterInstance) -> None:
    run(instance, refused)
    run(instance, published("1"), ORDERS, job=False)
    assert "snapshot 1" in told(instance)
    # A run of other assets says nothing of this one.
    run(instance, broken, DAILY, job=False)
    assert "snapshot 1" in told(instance) and "the catalog" in told(instance, "daily")
    run(instance, broken)
    assert "the catalog does not answer" in told(instance)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (dg.DagsterRunStatus.NOT_STARTED, "has not ended yet; it is not started"),
        (dg.DagsterRunStatus.STARTED, "has not ended yet; it is started"),
        (dg.DagsterRunStatus.CANCELED, "was canceled before it published it"),
    ],
)
def test_a_run_that_has_not_ended_or_was_canceled(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, said: str
) -> None:
    instance.add_run(dg.DagsterRun(job_name="shop_run", run_id="0" * 32, status=status))
    assert said in told(instance)
