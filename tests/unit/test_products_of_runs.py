"""Whose a run is: of a selection of assets, of a whole job, of somebody else's job over several products."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from floe_dagster.definitions.observing.products import belongs_to, is_own, products_of, steps_of


def multi(slug: str) -> Any:
    @dg.multi_asset(
        name=f"{slug}_dbt",
        specs=[dg.AssetSpec([slug, "orders"]), dg.AssetSpec([slug, "daily"])],
        check_specs=[dg.AssetCheckSpec("unique", asset=[slug, "orders"])],
        can_subset=True,
    )
    def build() -> Iterator[Any]:
        yield dg.MaterializeResult(asset_key=[slug, "orders"])

    return build


@dg.op
def sweep() -> None:
    """Of nobody's assets."""


@dg.job
def housekeeping() -> None:
    sweep()


CHECK = dg.AssetCheckKey(dg.AssetKey(["store", "orders"]), "unique")
DEFINITIONS = dg.Definitions(
    assets=[multi("shop"), multi("store")],
    jobs=[
        housekeeping,
        dg.define_asset_job("nightly", selection=dg.AssetSelection.all()),
        dg.define_asset_job("shop_run", selection=[dg.AssetKey(["shop", "orders"])]),
        dg.define_asset_job("checks", selection=dg.AssetSelection.checks(CHECK)),
    ],
)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def asked(instance: dg.DagsterInstance, job: str, **options: Any) -> dg.DagsterRun:
    return instance.create_run_for_job(DEFINITIONS.resolve_job_def(job), **options)


def test_a_whole_job_is_of_all_whose_assets_are_in_it(instance: dg.DagsterInstance) -> None:
    run = asked(instance, "nightly")
    assert run.asset_selection is None
    assert products_of(run, instance) == {"shop", "store"}
    assert belongs_to(run, "shop", instance) and belongs_to(run, "store", instance)
    assert not belongs_to(run, "other", instance)
    assert steps_of(run, instance) == {"shop_dbt": {"shop"}, "store_dbt": {"store"}}


def test_a_selection_is_of_those_that_it_names(instance: dg.DagsterInstance) -> None:
    run = asked(instance, "nightly", asset_selection=frozenset({dg.AssetKey(["store", "daily"])}))
    assert products_of(run, instance) == {"store"}


def test_a_job_of_checks_is_of_the_checked_product(instance: dg.DagsterInstance) -> None:
    run = asked(instance, "checks")
    assert products_of(run, instance) == {"store"} and not belongs_to(run, "shop", instance)


def test_a_job_without_assets_is_nobodys(instance: dg.DagsterInstance) -> None:
    run = asked(instance, "housekeeping")
    assert products_of(run, instance) == frozenset() and not belongs_to(run, "shop", instance)


def test_a_products_own_job_is_known_by_its_name(instance: dg.DagsterInstance) -> None:
    run = asked(instance, "shop_run")
    assert is_own(run, "shop") and belongs_to(run, "shop", instance)
    assert not is_own(run, "store") and not belongs_to(run, "store", instance)


def test_a_run_whose_plan_is_not_kept_is_nobodys(instance: dg.DagsterInstance) -> None:
    run = dg.DagsterRun(job_name="nightly")
    assert products_of(run, instance) == frozenset()
