"""Runs that a command executes in its own process: one at a time, and an end for each that was killed.

No launcher and no daemon knows of such a run. What the operating system takes back when a process ends, a file lock,
says who waits for whom; a slot of a pool would stay taken for ever.
"""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError, DagsterExecutionStepExecutionError
from dagster._core.execution.plan.utils import RetryRequestedFromPolicy

from floe_dagster.definitions.observing.process import Observed
from floe_dagster.definitions.observing.run_sensors import close_run
from floe_dagster.definitions.outcomes import WITHHELD
from floe_dagster.home import FloeHome

INTERRUPTED = "floe/interrupted"
"""Metadata of the failure of a step that was interrupted."""
COMMAND_TAG = "floe/command"
"""Run tag: on which machine, and for which FLOE_HOME, a command executes the run in its own process."""
_OPEN = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED)
_WRAPPERS = (DagsterExecutionStepExecutionError.__name__, RetryRequestedFromPolicy.__name__)
"""They say which op it was, and how often it was tried."""
_log = logging.getLogger("floe_dagster")


def without_retry_of_interruptions(events: Iterator[Any]) -> Iterator[Any]:
    """Yield the events of a step; where it is interrupted, it fails for good.

    Dagster counts an interruption as a reason to try again: right for a pod that is moved, not for a person at a terminal.

    Args:
        events: Of the step.

    Raises:
        dg.Failure: It was interrupted.
    """
    try:
        yield from events
    except (DagsterExecutionInterruptedError, KeyboardInterrupt) as interruption:
        raise dg.Failure("interrupted", metadata={INTERRUPTED: True}, allow_retries=False) from interruption


def was_interrupted(outcome: dg.ExecuteInProcessResult) -> bool:
    """Tell whether a run ended because somebody interrupted it."""
    for event in outcome.all_events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            data = event.step_failure_data.user_failure_data
            if data is not None and INTERRUPTED in data.metadata:
                return True
    return False


def failure_reason(event: dg.DagsterEvent) -> str | None:
    """Return why a step or a run failed, in words for people; None where the event tells of no failure, or not why.

    Args:
        event: Of a run.
    """
    if event.event_type not in (dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE):
        return None
    data = event.event_specific_data
    if getattr(data, "first_step_failure_event", None) is not None:
        # The step has said it.
        return None
    said = getattr(data, "user_failure_data", None)
    if said is not None and said.description:
        return str(said.description)
    return "\ncaused by ".join(_messages(getattr(data, "error", None))) or None


def _messages(error: Any) -> Iterator[str]:
    """Yield what an error and its causes say, without Dagster's own around them."""
    while error is not None:
        if error.cls_name not in _WRAPPERS or error.cause is None:
            yield error.message.strip()
        error = error.cause


def retry_reason(event: dg.DagsterEvent) -> str | None:
    """Return why a step is tried again, and when; None where the event tells of no other try.

    Args:
        event: Of a run.
    """
    if event.event_type != dg.DagsterEventType.STEP_UP_FOR_RETRY:
        return None
    data = event.event_specific_data
    seconds = getattr(data, "seconds_to_wait", None) or 0
    reasons = [re.sub(r"^dagster\S*Failure: ", "", said) for said in _messages(getattr(data, "error", None))]
    return "\n".join([*reasons[:1], f"waiting {seconds:.0f} s before another try"])


def failure_reasons(outcome: dg.ExecuteInProcessResult) -> list[str]:
    """Return why a run failed, each reason once; none where it did not.

    Args:
        outcome: Of the run.
    """
    reasons = (failure_reason(event) for event in outcome.all_events)
    return list(dict.fromkeys(reason for reason in reasons if reason is not None))


def withheld_tables(outcome: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Return why single tables of a run were not published, by name.

    Args:
        outcome: Of the run.
    """
    found: dict[str, str] = {}
    for event in outcome.all_events:
        found |= withheld_in(event)
    return found


def withheld_in(event: dg.DagsterEvent) -> dict[str, str]:
    """Return why tables were not published, by name, where the event is the failure of such a run's step.

    Args:
        event: Of a run.
    """
    if event.event_type != dg.DagsterEventType.STEP_FAILURE:
        return {}
    said = event.step_failure_data.user_failure_data
    reasons = getattr(said.metadata.get(WITHHELD), "value", None) if said is not None else None
    return {str(name): str(reason) for name, reason in (reasons or {}).items()}


def command_tags(home: FloeHome) -> dict[str, str]:
    """Return the tags of a run that this process executes.

    Args:
        home: The writable folder.
    """
    return {COMMAND_TAG: f"{socket.gethostname()}:{home.path}"}


@contextmanager
def turn(slug: str, home: FloeHome, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the right to run a product by command; whoever holds it knows that no other such run goes on.

    Args:
        slug: Of the product.
        home: The writable folder.
        say: Told once that somebody else has it.
    """
    from filelock import FileLock, Timeout

    home.locks_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(_lock_file(slug, home))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say("waiting for another floe-dagster run of this product")
        lock.acquire()
    try:
        _mark(slug, home).touch()
        yield
        _mark(slug, home).unlink(missing_ok=True)
    finally:
        lock.release()


def _lock_file(slug: str, home: FloeHome) -> Path:
    return home.locks_dir / f"run-{slug}.lock"


def _mark(slug: str, home: FloeHome) -> Path:
    """Stays where a command is killed: whoever looks for that need not ask Dagster's storage each time."""
    return home.locks_dir / f"run-{slug}.began"


def end_killed_command(
    instance: Callable[[], dg.DagsterInstance],
    slug: str,
    home: FloeHome,
    observed: Callable[[], Observed] | None,
) -> list[str]:
    """Do what the next command would do, `end_lost_runs`, where one was killed; next to nothing where none was.

    Args:
        instance: Gives the one that knows of the run.
        slug: Of the product.
        home: The writable folder.
        observed: Opens who is told; None where nobody is.

    Returns:
        The ids of the runs that came to an end so.
    """
    if not _mark(slug, home).exists():
        return []
    from filelock import FileLock, Timeout

    lock = FileLock(_lock_file(slug, home))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return []
    try:
        ended = end_lost_runs(instance(), slug, home, observed)
        _mark(slug, home).unlink(missing_ok=True)
        return ended
    finally:
        lock.release()


def end_lost_runs(
    instance: dg.DagsterInstance, slug: str, home: FloeHome, observed: Callable[[], Observed] | None
) -> list[str]:
    """Report the runs of a product as failed whose command was killed, and tell of their end.

    Args:
        instance: That knows of them.
        slug: Of the product; this process holds its `turn`.
        home: The writable folder.
        observed: Opens who is told; None where nobody is.

    Returns:
        The ids of these runs.
    """
    open_runs = dg.RunsFilter(job_name=f"{slug}_run", statuses=list(_OPEN), tags=command_tags(home))
    lost = instance.get_runs(open_runs)
    for run in lost:
        instance.report_run_failed(run, "the process of floe-dagster run ended before the run did")
        ended = instance.get_run_by_id(run.run_id)
        if observed is None or ended is None:
            continue
        try:
            close_run(observed(), instance, ended)
        except Exception as error:  # what is told of a run that is over must not hold up the next one
            _log.warning("%s: the end of run %s is not told: %s", slug, run.run_id, error)
    return [run.run_id for run in lost]
