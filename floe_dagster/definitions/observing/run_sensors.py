"""Tell of runs that ended where nobody inside could: killed, canceled before they began, made of several steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import dagster as dg

from floe_dagster.definitions.observing.process import Observed
from floe_dagster.definitions.observing.products import belongs_to, steps_of
from floe_dagster.definitions.observing.runs import ObservedRun, closed_mark, ended_state
from floe_dagster.definitions.observing.times import nanoseconds, when
from floe_dagster.observability.telemetry import fail
from floe_dagster.observability.trace_context import step_span_id

INTERVAL_SECONDS = 10
_STATUSES = {
    "success": dg.DagsterRunStatus.SUCCESS,
    "failure": dg.DagsterRunStatus.FAILURE,
    "canceled": dg.DagsterRunStatus.CANCELED,
}


def build_run_sensors(slug: str, observed: Callable[[], Observed]) -> list[dg.SensorDefinition]:
    """Return the sensors that close what runs left open.

    Args:
        slug: Of the product.
        observed: Opens who is told, once something is to be told.
    """
    return [_sensor(slug, name, status, observed) for name, status in _STATUSES.items()]


def _sensor(
    slug: str, name: str, status: dg.DagsterRunStatus, observed: Callable[[], Observed]
) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        run_status=status,
        name=f"{slug}_run_{name}",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Ends the trace and the OpenLineage run of runs that could not do so themselves.",
    )
    def run_ended(context: dg.RunStatusSensorContext) -> dg.SkipReason | None:
        run = context.dagster_run
        if not belongs_to(run, slug, context.instance):
            return dg.SkipReason("a run of another product")
        if closed_mark(run, slug, ended_state(run.status.value)).items() <= run.tags.items():
            return dg.SkipReason("the run has told of its end itself")
        close_run(observed(), context.instance, run)
        return None

    return run_ended


def close_run(observed: Observed, instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Tell of the end of a run, and of its steps and models that did not come to one.

    Args:
        observed: The product.
        instance: That knows the run's events.
        run: It has ended.
    """
    state = ended_state(run.status.value)
    record = instance.get_run_record_by_id(run.run_id)
    if state is None or record is None:
        return
    of_run = ObservedRun(observed, run, instance)
    ended = record.end_time or time.time()
    events = _events(instance, run.run_id)
    message = _failure(events) if state == "FAIL" else None
    unfinished = _unfinished_steps(events)
    if of_run.is_shared:
        steps = steps_of(run, instance)
        # Those of other products are in their own traces.
        unfinished = [step for step in unfinished if observed.slug in steps.get(step[0], ())]
    for step, attempt, begun in unfinished:
        span = observed.telemetry.start_span(
            f"step {step}",
            of_run.trace,
            span_id=step_span_id(run.run_id, step, attempt),
            start=nanoseconds(begun),
            attributes={**of_run.attributes(), "floe.dagster.step": step, "floe.dagster.attempt": attempt},
        )
        if observed.telemetry.enabled:
            fail(span, message or "the run worker ended without a word", "worker_lost")
        span.end(nanoseconds(max(ended, begun)))
    if observed.lineage.enabled and any(step == f"{observed.slug}_dbt" for step, *_ in unfinished):
        _abort_models(of_run, events, ended)
    of_run.close(
        state,
        created=record.create_timestamp.timestamp(),
        started=record.start_time,
        ended=ended,
        error=message,
    )
    instance.add_run_tags(run.run_id, closed_mark(run, observed.slug, state))
    observed.flush()


def _events(instance: dg.DagsterInstance, run_id: str) -> list[Any]:
    kinds = {
        dg.DagsterEventType.STEP_START,
        dg.DagsterEventType.STEP_RESTARTED,
        dg.DagsterEventType.STEP_SUCCESS,
        dg.DagsterEventType.STEP_FAILURE,
        dg.DagsterEventType.STEP_UP_FOR_RETRY,
        dg.DagsterEventType.RUN_FAILURE,
        dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        dg.DagsterEventType.ASSET_MATERIALIZATION,
    }
    return [entry for entry in instance.all_logs(run_id, of_type=kinds) if entry.dagster_event is not None]


def _unfinished_steps(events: list[Any]) -> list[tuple[str, int, float]]:
    """Return key, attempt and beginning of each step whose process ended before it could tell of it."""
    running: dict[str, tuple[int, float]] = {}
    attempts: dict[str, int] = {}
    for entry in events:
        event, step = entry.dagster_event, entry.dagster_event.step_key
        kind = event.event_type
        if kind in (dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED):
            running[step] = (attempts.get(step, 0), entry.timestamp)
            attempts[step] = attempts.get(step, 0) + 1
        elif kind in (
            dg.DagsterEventType.STEP_SUCCESS,
            dg.DagsterEventType.STEP_FAILURE,
            dg.DagsterEventType.STEP_UP_FOR_RETRY,
        ):
            running.pop(step, None)
    return [(step, attempt, begun) for step, (attempt, begun) in running.items()]


def _failure(events: list[Any]) -> str | None:
    said = None
    for entry in events:
        event = entry.dagster_event
        if event.event_type == dg.DagsterEventType.STEP_FAILURE and event.step_failure_data.error:
            data = event.step_failure_data
            return str((data.user_failure_data and data.user_failure_data.description) or data.error.message)
        if event.event_type == dg.DagsterEventType.RUN_FAILURE:
            said = event.message
    return said


def _abort_models(run: ObservedRun, events: list[Any], ended: float) -> None:
    """Tell of the models that the run was to make and did not."""
    planned: dict[tuple[str, ...], None] = {}
    made: set[tuple[str, ...]] = set()
    for entry in events:
        key = entry.dagster_event.asset_key
        if key is None or key.path[0] != run.observed.slug:
            continue
        if entry.dagster_event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            made.add(tuple(key.path))
        elif entry.dagster_event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED:
            planned[tuple(key.path)] = None
    lineage = run.lineage()
    assets = {asset.name: asset for asset in run.observed.index.assets}
    for path in planned:
        asset = assets.get(path[-1])
        if path not in made and asset is not None:
            run.observed.lineage.emit(
                lineage.asset_event(
                    "ABORT", when(ended), asset, error="the run ended before it was published"
                )
            )
