"""Which products have a part in a run, whoever asked for it and in whichever job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

KEPT_PLANS = 256
_OWN_JOBS = ("run", "compile", "maintenance", "platform_check")
_plans: dict[str, Mapping[str, frozenset[str]]] = {}


def products_of(run: dg.DagsterRun, instance: dg.DagsterInstance) -> frozenset[str]:
    """Return the slugs of the products whose assets or checks a run is about.

    A run of assets names them; a run of a whole job, which may be anybody's, has them in its execution plan.

    Args:
        run: Any run of the location.
        instance: That knows it.
    """
    keys = {key.path[0] for key in run.asset_selection or ()}
    keys |= {key.asset_key.path[0] for key in run.asset_check_selection or ()}
    return frozenset(keys) or frozenset().union(*steps_of(run, instance).values())


def steps_of(run: dg.DagsterRun, instance: dg.DagsterInstance) -> Mapping[str, frozenset[str]]:
    """Return the slugs of the products that each step of a run is about, by the step's key.

    Args:
        run: Any run of the location.
        instance: That knows it.
    """
    snapshot = run.execution_plan_snapshot_id
    if snapshot is None:
        return {}
    # Its id is a digest of the plan, so the next run of the same job has it, too.
    if snapshot not in _plans:
        found = _read(instance.get_execution_plan_snapshot(snapshot))
        if len(_plans) >= KEPT_PLANS:
            _plans.clear()
        _plans[snapshot] = found
    return _plans[snapshot]


def belongs_to(run: dg.DagsterRun, slug: str, instance: dg.DagsterInstance) -> bool:
    """Tell whether a run is one of a product, alone or together with others.

    Args:
        run: Any run of the location.
        slug: Of the product.
        instance: That knows the run.
    """
    return is_own(run, slug) or slug in products_of(run, instance)


def is_own(run: dg.DagsterRun, slug: str) -> bool:
    """Tell whether a run is one of a product's own jobs."""
    return run.job_name in {f"{slug}_{name}" for name in _OWN_JOBS}


def _read(plan: Any) -> Mapping[str, frozenset[str]]:
    wanted = set(plan.step_keys_to_execute)
    return {
        step.key: frozenset(
            getattr(key, "asset_key", key).path[0]
            for output in step.outputs
            if output.properties is not None
            for key in (output.properties.asset_key, output.properties.asset_check_key)
            if key is not None
        )
        for step in plan.steps
        if step.key in wanted
    }
