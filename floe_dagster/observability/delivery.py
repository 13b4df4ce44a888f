"""Delivers an outbox in the background: in order, with backoff, and without anybody waiting for it.

A run never waits for a receiver that is away: at its end it waits for answers as long as they come, and leaves the rest
to whoever delivers next.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable

from floe_dagster.observability.answers import ReceiverAwayError, Send
from floe_dagster.observability.outbox import Outbox, OutboxFullError
from floe_dagster.observability.sweep import Sweep, SweepStoppedError

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
BUNCH_SECONDS = 0.2
"""So long a record waits for others: several at once cost a run less than one by one."""
LOOK_SECONDS = 10.0
"""How often a process that has nothing to send looks for what others left."""
PATIENCE_SECONDS = 0.5
"""A flush waits so long for one answer; a receiver that needs longer gets the rest later."""
JOIN_SECONDS = 1.0

_log = logging.getLogger("floe_dagster.observability")

_told: dict[tuple[str, str], Delivery] = {}
"""Who told of a setting's problem: traces and metrics share a receiver, and one of them is enough."""


class Delivery:
    """Sends what lies in an outbox, from a thread that starts with the first record.

    Args:
        outbox: Where the records lie.
        send: Delivers a batch.
        batch: Records between two notes of what is delivered: so many are sent again where a process is killed.
        name: What is delivered, for messages: "lineage events".
        field: The setting in the manifest that names the receiver, for messages.
        clock: Monotonic seconds.
        log: Takes what people should know.
    """

    def __init__(
        self,
        outbox: Outbox,
        send: Send,
        *,
        batch: int,
        name: str,
        field: str,
        clock: Callable[[], float] = time.monotonic,
        log: logging.Logger = _log,
    ) -> None:
        self.outbox = outbox
        self.name = name
        self.field = field
        self.sweep = Sweep(
            outbox, send, batch=batch, name=name, field=field, log=log, clock=clock, taken=self._recovered
        )
        self._clock = clock
        self._log = log
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._ending = threading.Event()
        self._puts = 0
        self._delivered_puts = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._working = False
        self.problem: str | None = None
        self.lost = 0
        self._reported = False
        self._losing_since: int | None = None
        self._latest = float("inf")

    @property
    def delivered(self) -> int:
        """Records that the receiver took."""
        return self.sweep.delivered

    @property
    def refused(self) -> int:
        """Records that the receiver will never take."""
        return self.sweep.refused

    @property
    def dropped(self) -> int:
        """Records that are not delivered and do not wait, either."""
        return self.lost + self.refused

    def put(self, record: bytes) -> None:
        """Hand one record over; never raises, never waits for the receiver."""
        try:
            self.outbox.put(record)
        except OutboxFullError as error:
            if self._losing_since is None:
                self._losing_since = self.lost
                self._log.warning("%s: %s are lost from now on: %s", self.field, self.name, error)
            self.lost += 1
            return
        if self._losing_since is not None:
            lost, self._losing_since = self.lost - self._losing_since, None
            self._log.info("%s: %s are kept again; %d were lost", self.field, self.name, lost)
        self._puts += 1
        if self._closing:
            self._leave()
        else:
            self.start()
            self._wake.set()

    def start(self) -> None:
        """Begin to deliver, what earlier processes left included."""
        with self._lock:
            if self._closing or self._works():
                return
            self._thread = threading.Thread(
                target=self._work, name=f"floe-{self.name.replace(' ', '-')}", daemon=True
            )
            self._working = True
            self._thread.start()

    def flush(self, seconds: float) -> bool:
        """Wait for what was handed over, as long as the receiver answers promptly.

        Args:
            seconds: At most.

        Returns:
            True where everything is delivered; what is not stays in the outbox.
        """
        deadline, puts = min(self._clock() + seconds, self._latest), self._puts
        self._hurry.set()
        try:
            return self._flushed(puts, deadline)
        finally:
            if not self._closing:
                self._hurry.clear()

    def _flushed(self, puts: int, deadline: float) -> bool:
        while self._delivered_puts < puts:
            if self.problem is not None or self._clock() >= deadline or not self._works():
                return False
            if self._waits_long():
                return False
            time.sleep(0.005)
        return True

    def end_within(self, seconds: float) -> None:
        """Have all that waits for this delivery from now on, `flush` and `close`, wait so long altogether."""
        self._latest = self._clock() + seconds

    def close(self, seconds: float) -> bool:
        """Flush, then stop after the record that is under way; what is not delivered is left to others.

        Args:
            seconds: For the flush, at most.

        Returns:
            True where everything is delivered.
        """
        done = self.flush(0.0 if self._closing else seconds)
        self._ending.set()
        self._hurry.set()
        self.sweep.stop()
        self._wake.set()
        thread = self._thread
        # A request that hangs is left alone: the thread gives everything back as soon as that ends.
        if thread is not None and not self._waits_long():
            thread.join(timeout=min(JOIN_SECONDS, max(self._latest - self._clock(), 0.0)))
        self._leave()
        self._forget_told()
        return done

    @property
    def _closing(self) -> bool:
        return self._ending.is_set()

    def _works(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _waits_long(self) -> bool:
        asked = self.sweep.asked_at
        return asked is not None and self._clock() - asked > PATIENCE_SECONDS

    def _leave(self) -> None:
        """Give back what is not delivered, unless the thread is still at it: then it does so when it ends."""
        with self._lock:
            # In a forked child the parent's thread is not there.
            if self._closing and not (self._working and self._works()):
                self.outbox.close()

    def _work(self) -> None:
        try:
            self._deliver()
        finally:
            self.sweep.close()
            with self._lock:
                self._working = False
            self._leave()

    def _deliver(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        looked_at = float("-inf")
        while not self._closing:
            self._wake.clear()
            puts = self._puts
            delivered = self.delivered
            others = self._clock() - looked_at >= LOOK_SECONDS
            if others:
                looked_at = self._clock()
            try:
                self.sweep.deliver_all(others=others)
            except SweepStoppedError:
                return
            except ReceiverAwayError as error:
                self._report(str(error))
                if self.delivered > delivered:
                    pause = FIRST_PAUSE_SECONDS
                self._sleep(error.retry_after or pause * random.uniform(0.75, 1.25))
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                looked_at = float("-inf") if others else looked_at
                continue
            except OSError as error:
                self._report(f"{self.outbox.folder} cannot be read: {error}")
                self._sleep(pause)
                continue
            except Exception as error:
                # A thread that ends would leave everything, and a stack trace.
                self._report(f"{type(error).__name__}: {error}")
                self._sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                continue
            pause = FIRST_PAUSE_SECONDS
            self._recovered()
            self._delivered_puts = puts
            # A close may have come between the look at it and the `clear`.
            if not self._closing:
                self._wake.wait(LOOK_SECONDS)
                self._hurry.wait(BUNCH_SECONDS)

    def _report(self, problem: str) -> None:
        self.problem = problem
        if not self._reported and _told.setdefault((self.field, problem), self) is self:
            self._reported = True
            self._log.warning(
                "%s: %s. Nothing is lost and no run is held up: the %s stay in %s and are sent later",
                self.field,
                problem,
                self.name,
                self.outbox.folder,
            )

    def _recovered(self) -> None:
        if self.problem is not None:
            self.problem = None
            if self._reported:
                self._log.info("%s: the %s are taken again", self.field, self.name)
            self._reported = False
            self._forget_told()

    def _forget_told(self) -> None:
        for told in [told for told, by in list(_told.items()) if by is self]:
            _told.pop(told, None)

    def _sleep(self, seconds: float) -> None:
        # New records do not shorten the pause, the end does.
        self._ending.wait(min(seconds, 300.0))


def flush_all(waits: Iterable[tuple[Delivery, float]]) -> bool:
    """Flush several deliveries, which send at the same time: this takes as long as the longest of them.

    Args:
        waits: Deliveries, each with the seconds to wait for it at most.

    Returns:
        True where everything is delivered.
    """
    begun = time.monotonic()
    # Every one of them, also after one that gave up.
    answers = [delivery.flush(max(begun + seconds - time.monotonic(), 0.0)) for delivery, seconds in waits]
    return all(answers)
