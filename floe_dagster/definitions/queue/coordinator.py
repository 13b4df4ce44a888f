"""Dagster's queue, in which products take turns."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg
from dagster import QueuedRunCoordinator, SubmitRunContext

from floe_dagster.definitions.dagster_private import (
    ACTIVE_RUN_STATUSES,
    PRIORITY_TAG,
    is_reserved_asset_job_name,
)
from floe_dagster.definitions.queue.tags import PRODUCT_TAG, TURN_TAG, is_queue_tag

_OPEN = (dg.DagsterRunStatus.QUEUED, *ACTIVE_RUN_STATUSES)


class FairRunCoordinator(QueuedRunCoordinator):
    """Dagster's own queue, which takes the settings of `concurrency.runs` and starts runs as it always does.

    Dagster's queue is first come, first served: where as many products as an engine takes at once have queued twenty runs
    each, the single run of another product comes last. So a run begins with a priority of minus the number of the
    product's runs that are open already: first runs of all products, then second ones. A priority that a person chose
    stays.

    Runs that are started without their job, as by "Materialize" on the page of an asset, have no tags that could be
    limited; they get those of the job that their assets belong to.
    """

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Put a run into the queue.

        Args:
            context: The run, and the workspace that it comes from.
        """
        run = context.dagster_run
        if run.status == dg.DagsterRunStatus.NOT_STARTED:
            found = {**_tags_of_assets(context), **run.tags}
            new = {key: value for key, value in found.items() if is_queue_tag(key) and key not in run.tags}
            if PRODUCT_TAG in found:
                new |= self._turn(found[PRODUCT_TAG], run.tags)
            if new:
                self._instance.add_run_tags(run.run_id, new)
        return super().submit_run(context)

    def _turn(self, product: str, tags: Mapping[str, str]) -> dict[str, str]:
        # A run that is executed again comes with the tags of the one before.
        if tags.get(PRIORITY_TAG) != tags.get(TURN_TAG):
            return {}
        before = self._instance.get_runs_count(
            dg.RunsFilter(tags={PRODUCT_TAG: product}, statuses=list(_OPEN))
        )
        turn = str(-before)
        return {} if turn == tags.get(TURN_TAG, "0") else {PRIORITY_TAG: turn, TURN_TAG: turn}


def _tags_of_assets(context: SubmitRunContext) -> dict[str, str]:
    """Return what the jobs of a run's assets agree on; nothing where the run has its job's tags already."""
    run, origin = context.dagster_run, context.dagster_run.remote_job_origin
    if origin is None or not is_reserved_asset_job_name(run.job_name):
        return {}
    if not context.workspace.has_code_location(origin.location_name):
        return {}
    location = context.workspace.get_code_location(origin.location_name)
    repository = location.get_repository(origin.repository_origin.repository_name)
    keys = set(run.asset_selection or ()) | {check.asset_key for check in run.asset_check_selection or ()}
    nodes = [node for node in repository.get_asset_node_snaps() if not keys or node.asset_key in keys]
    jobs = {name for node in nodes for name in node.job_names if not is_reserved_asset_job_name(name)}
    values: dict[str, set[str]] = {}
    for job in (repository.get_full_job(name) for name in sorted(jobs)):
        for key, value in job.tags.items():
            if is_queue_tag(key):
                values.setdefault(key, set()).add(value)
    return {key: only for key, (only, *others) in values.items() if not others}
