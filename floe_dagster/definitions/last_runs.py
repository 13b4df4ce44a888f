"""What the last run of a model came to, for whoever misses its table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from floe_dagster.definitions.asset_specs import asset_key
from floe_dagster.definitions.command_runs import failure_reason, withheld_in

LOOKED_AT = 50
"""So many runs are searched for one that was asked for the model."""
ASSET_JOB = "__ASSET_JOB"
"""Dagster's job of assets that are materialized without a job of ours."""
_FAILURES = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}


@dataclass(frozen=True, slots=True)
class LastRun:
    """The newest run that was asked for a model.

    Args:
        run_id: Its id.
        begun: When it was asked for, UTC.
        status: Its status.
        reason: Why it did not publish the model; None where it did not fail.
        snapshot: Iceberg snapshot that it published of the model; None where it published none.
    """

    run_id: str
    begun: datetime
    status: dg.DagsterRunStatus
    reason: str | None = None
    snapshot: str | None = None

    def told(self) -> str:
        """Return what it came to, as the end of a sentence."""
        run = f"the last run ({self.run_id[:8]}, {self.begun:%Y-%m-%d %H:%M} UTC)"
        if self.snapshot is not None:
            return (
                f"{run} published it as snapshot {self.snapshot}, and this catalog does not have it: the table was dropped, "
                "or the product was compiled for another catalog since"
            )
        if self.status is dg.DagsterRunStatus.SUCCESS:
            return f"{run} did not publish it: it was no table then; run `floe-dagster run`"
        if self.status in (dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.CANCELING):
            return f"{run} was canceled before it published it; run `floe-dagster run`"
        if self.status is dg.DagsterRunStatus.FAILURE:
            return f"{run} did not publish it: {self.reason or 'it failed'}"
        return f"{run} has not ended yet; it is {self.status.value.lower().replace('_', ' ')}"


def last_run(instance: dg.DagsterInstance, slug: str, model: str) -> LastRun | None:
    """Return the newest run that was asked for a model; None where none is known.

    Args:
        instance: That knows of the runs.
        slug: Of the product.
        model: Name of the model.
    """
    key = asset_key(slug, model)
    records = [
        record
        for job in (f"{slug}_run", ASSET_JOB)
        for record in instance.get_run_records(dg.RunsFilter(job_name=job), limit=LOOKED_AT)
        # A job without a selection is asked for all that it has; `__ASSET_JOB` never is.
        if key in (record.dagster_run.asset_selection or ({key} if job != ASSET_JOB else ()))
    ]
    if not records:
        return None
    newest = max(records, key=lambda record: record.create_timestamp)
    run = newest.dagster_run
    snapshot = reason = None
    if run.status is dg.DagsterRunStatus.FAILURE:
        reason = _reason(instance, run.run_id, model)
    event = instance.get_latest_materialization_event(key)
    if event is not None and event.run_id == run.run_id and event.asset_materialization is not None:
        noted = event.asset_materialization.metadata.get("iceberg/snapshot_id")
        snapshot = str(noted.value) if noted is not None else None
    return LastRun(run.run_id, newest.create_timestamp.astimezone(UTC), run.status, reason, snapshot)


def _reason(instance: dg.DagsterInstance, run_id: str, model: str) -> str | None:
    events = [entry.dagster_event for entry in instance.all_logs(run_id, of_type=_FAILURES)]
    reasons = [said for event in events if event is not None and (said := failure_reason(event))]
    for event in events:
        if event is not None and model in (withheld := withheld_in(event)):
            return withheld[model]
    return reasons[0].splitlines()[0] if reasons else None
