"""One step of a run, seen from outside: its span, its logs, and the end of the run where this is its only step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from floe_dagster.definitions.observing.harmless import harmless
from floe_dagster.definitions.observing.logs import shape_console
from floe_dagster.definitions.observing.process import Observed
from floe_dagster.definitions.observing.runs import ObservedRun, closed_mark
from floe_dagster.definitions.observing.times import nanoseconds, when
from floe_dagster.observability.telemetry import fail
from floe_dagster.observability.trace_context import TRACEPARENT, step_span_id


class ObservedStep:
    """What a step tells while it runs. Nothing of it ever fails the step.

    Args:
        observed: The product.
        context: Of the step.
    """

    def __init__(self, observed: Observed, context: Any) -> None:
        self.observed = observed
        self.context = context
        self.run = ObservedRun(observed, context.run, context.instance, _root_tags(context))
        self.span: Any = None
        self.assertions: list[Any] = []

    @contextmanager
    def observing(self, begun: float | None = None) -> Iterator[None]:
        """Run the step inside its span; where it is the run's only step, tell of the run's end as well.

        Args:
            begun: Seconds since the epoch; now when None.
        """
        shape_console(
            self.context.log,
            self.observed.slug,
            self.observed.config.telemetry.logging,
            {"run_id": self.run.run.run_id, **self._trace_ids()},
        )
        if not self.observed.enabled:
            yield
            return
        from opentelemetry import context as otel
        from opentelemetry import trace

        begun = begun or time.time()
        self.span = trace.INVALID_SPAN
        self._begin(begun)
        token = otel.attach(trace.set_span_in_context(self.span))
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            otel.detach(token)
            self._ended(begun, error)

    @harmless
    def _begin(self, begun: float) -> None:
        context = self.context
        step_key = context.get_step_execution_context().step.key
        self._tag(self.run.tags())
        attempt = context.retry_number
        span_id = step_span_id(context.run.run_id, step_key, attempt)
        self.span = self.observed.telemetry.start_span(
            f"step {step_key}",
            self.run.trace,
            span_id=span_id,
            start=nanoseconds(begun),
            attributes={
                **self.run.attributes(),
                "floe.dagster.step": step_key,
                "floe.dagster.attempt": attempt,
                "code.function.name": context.op_def.name,
            },
        )
        if attempt:
            self.observed.telemetry.instruments.add("retries", 1, kind="step", product=self.observed.slug)
        self._started()

    def _trace_ids(self) -> dict[str, str]:
        return {"trace_id": f"{self.run.trace.trace_id:032x}"} if self.observed.telemetry.enabled else {}

    @harmless
    def _started(self) -> None:
        lineage = self.observed.lineage
        if not lineage.enabled:
            return
        # Every step of the run says the same: the second START is the first one again.
        record = self.context.instance.get_run_record_by_id(self.context.run.run_id)
        started = record.start_time if record and record.start_time else time.time()
        lineage.emit(self.run.lineage().run_event("START", when(started)))

    @harmless
    def _ended(self, begun: float, error: BaseException | None) -> None:
        interrupted = error is not None and _is_interruption(error)
        if error is not None and self.observed.telemetry.enabled:
            fail(self.span, error, "interrupted" if interrupted else None)
        self.span.end()
        ended = time.time()
        self.observed.telemetry.instruments.record(
            "run",
            ended - begun,
            product=self.observed.slug,
            job=self.run.job,
            outcome="failed" if error else "succeeded",
        )
        if self._is_last(error):
            state = "COMPLETE" if error is None else "ABORT" if interrupted else "FAIL"
            record = self.context.instance.get_run_record_by_id(self.context.run.run_id)
            self.run.close(
                state,
                created=record.create_timestamp.timestamp() if record else None,
                started=record.start_time if record else begun,
                ended=ended,
                error=_message(error),
                assertions=self.assertions,
            )
            self._tag(closed_mark(self.context.run, self.observed.slug, state))
        elif self.assertions and self.observed.lineage.enabled:
            # Who ends the run does not know them.
            event = self.run.lineage().run_event("RUNNING", when(ended), assertions=self.assertions)
            self.observed.lineage.emit(event)
        self.observed.flush()

    def _is_last(self, error: BaseException | None) -> bool:
        """Tell whether the run ends with this attempt; where others follow, a sensor tells of its end."""
        context = self.context
        if isinstance(error, Exception) and not (isinstance(error, dg.Failure) and not error.allow_retries):
            policy = context.op_def.retry_policy
            if policy is not None and context.retry_number < policy.max_retries:
                return False
        snapshot = context.run.execution_plan_snapshot_id
        if snapshot is None:
            return True
        plan = context.instance.get_execution_plan_snapshot(snapshot)
        return len(plan.step_keys_to_execute) == 1

    def _tag(self, tags: Mapping[str, str]) -> None:
        new = {key: value for key, value in tags.items() if self.context.run.tags.get(key) != value}
        if new:
            self.context.instance.add_run_tags(self.context.run.run_id, new)


def _root_tags(context: Any) -> Mapping[str, str]:
    root = context.run.root_run_id
    if root is None or TRACEPARENT in context.run.tags:
        return {}
    try:
        run = context.instance.get_run_by_id(root)
    except Exception:  # Dagster's storage is away, which is for the run to say
        return {}
    return run.tags if run is not None else {}


def _is_interruption(error: BaseException) -> bool:
    from dagster import DagsterExecutionInterruptedError

    interruptions = DagsterExecutionInterruptedError | KeyboardInterrupt | GeneratorExit | SystemExit
    found: BaseException | None = error
    while found is not None and not isinstance(found, interruptions):
        # What fails while an interruption is handled, such as a dbt that does not end in time, comes of it.
        found = found.__context__
    return found is not None


def _message(error: BaseException | None) -> str | None:
    if error is None:
        return None
    return str(getattr(error, "description", None) or error) or type(error).__name__
