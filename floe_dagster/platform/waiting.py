"""Waits for services that start: bounded, with a growing pause, and an error that names what did not answer."""

from __future__ import annotations

import time
from collections.abc import Callable

from floe_dagster.connections import connection_reason
from floe_dagster.errors import FloeError

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0


class PlatformError(FloeError):
    """A service is not there, or refuses; the message says which, and what to do."""


NOT_READY = "it says that it is not ready"
START_IT = "Start it, correct its address in the manifest, or wait longer with --wait"


def wait_for(
    name: str,
    address: str,
    answers: Callable[[], bool],
    seconds: float,
    *,
    not_ready: str = NOT_READY,
    fix: str = START_IT,
) -> None:
    """Wait until a service answers.

    Args:
        name: Of the service, for people.
        address: Where it should be.
        answers: Tells whether it does; an OSError or a PlatformError means that it does not.
        seconds: How long to wait at most.
        not_ready: What it means where it answers with no.
        fix: What to do where it never does.

    Raises:
        PlatformError: It did not answer in time.
    """
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        reason = not_ready
        try:
            if answers():
                return
        except PlatformError as error:
            reason = str(error)
        except OSError as error:
            reason = no_answer_reason(error)
        if time.monotonic() + pause > deadline:
            raise PlatformError(f"{name} at {address} did not answer within {seconds:.0f} s: {reason}. {fix}")
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def no_answer_reason(error: Exception) -> str:
    """Return in a few words why a service does not answer."""
    first_line = next(iter(str(error).splitlines()), type(error).__name__)
    return connection_reason(error) or first_line[:300]
