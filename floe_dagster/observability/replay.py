"""Delivers in the foreground what processes that ended have left."""

from __future__ import annotations

import contextlib
import logging
import time

from floe_dagster.observability.answers import ReceiverAwayError, Send
from floe_dagster.observability.outbox import Outbox
from floe_dagster.observability.sweep import Sweep

REPLAY_PAUSE_SECONDS = 0.1

_log = logging.getLogger("floe_dagster.observability")


class ReplayEndedError(ReceiverAwayError):
    """The receiver went away during a replay.

    Args:
        message: What is wrong, for a person.
        delivered: Records that it took before.
        refused: Records that it will never take.
    """

    def __init__(self, message: str, *, delivered: int, refused: int) -> None:
        super().__init__(message)
        self.delivered = delivered
        self.refused = refused


def deliver_now(outbox: Outbox, send: Send, *, batch: int) -> tuple[int, int]:
    """Deliver what processes that ended have left, in the foreground.

    Args:
        outbox: Where the records lie.
        send: Delivers a batch.
        batch: Records between two notes of what is delivered.

    Returns:
        How many were delivered, how many were refused for ever.

    Raises:
        ReplayEndedError: The receiver does not take them now; the rest stays.
        OSError: The outbox cannot be read; it names the file.
    """
    sweep = Sweep(outbox, send, batch=batch, name="records", field="replay", log=_log)
    with contextlib.closing(outbox), contextlib.closing(sweep):
        while True:
            try:
                sweep.deliver_all(others=True)
                return sweep.delivered, sweep.refused
            except ReceiverAwayError as error:
                if not error.answered or sweep.gave_up:
                    raise ReplayEndedError(
                        str(error), delivered=sweep.delivered, refused=sweep.refused
                    ) from error
            time.sleep(REPLAY_PAUSE_SECONDS)
