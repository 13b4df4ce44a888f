"""Delivers an outbox in the background: in order, with backoff, and without anybody waiting for it.

A run never waits for a receiver that is away: at its end it waits for answers as long as they come, and leaves the rest
to whoever delivers next.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence

from floe_dagster.observability.outbox import Outbox, OutboxFullError, Segment

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
LOOK_SECONDS = 10.0
"""How often a process that has nothing to send looks for what others left."""
PATIENCE_SECONDS = 0.5
"""A flush waits so long for one answer; a receiver that needs longer gets the rest later."""

_log = logging.getLogger("floe_dagster.observability")


class ReceiverAwayError(Exception):
    """The receiver does not take records now; it may later.

    Args:
        message: What is wrong, for a person.
        retry_after: Seconds that the receiver asks to wait.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RecordRefusedError(Exception):
    """The receiver will never take this record."""


Send = Callable[[Sequence[bytes]], None]
"""Delivers records, in order; raises `ReceiverAwayError` or `RecordRefusedError`."""


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
        self._send = send
        self._batch = batch
        self._clock = clock
        self._log = log
        self._wake = threading.Event()
        self._puts = 0
        self._delivered_puts = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._asked_at: float | None = None
        self.problem: str | None = None
        self.delivered = 0
        self.dropped = 0
        self._reported = False

    def put(self, record: bytes) -> None:
        """Hand one record over; never raises, never waits for the receiver."""
        try:
            self.outbox.put(record)
        except OutboxFullError as error:
            self.dropped += 1
            if self.dropped == 1:
                self._log.warning("%s: %s are lost from now on: %s", self.field, self.name, error)
            return
        self._puts += 1
        self.start()
        self._wake.set()

    def start(self) -> None:
        """Begin to deliver, what earlier processes left included."""
        with self._lock:
            if self._closing or (self._thread is not None and self._thread.is_alive()):
                return
            self._thread = threading.Thread(
                target=self._work, name=f"floe-{self.name.replace(' ', '-')}", daemon=True
            )
            self._thread.start()

    def flush(self, seconds: float) -> bool:
        """Wait for what was handed over, as long as the receiver answers promptly.

        Args:
            seconds: At most.

        Returns:
            True where everything is delivered; what is not stays in the outbox.
        """
        deadline, puts = self._clock() + seconds, self._puts
        while self._delivered_puts < puts:
            asked = self._asked_at
            if self.problem is not None or self._clock() >= deadline:
                return False
            if asked is not None and self._clock() - asked > PATIENCE_SECONDS:
                return False
            time.sleep(0.005)
        return True

    def close(self, seconds: float) -> bool:
        """Flush, then stop; what is not delivered is left to others."""
        done = self.flush(seconds)
        self._closing = True
        self._wake.set()
        thread = self._thread
        if thread is not None and self._asked_at is None:
            thread.join(timeout=1.0)
        if thread is None or not thread.is_alive():
            self.outbox.close()
        return done

    def _work(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        looked_at = float("-inf")
        while not self._closing:
            self._wake.clear()
            puts = self._puts
            others = self._clock() - looked_at >= LOOK_SECONDS
            if others:
                looked_at = self._clock()
            try:
                self._deliver_all(others=others)
            except ReceiverAwayError as error:
                self._report(str(error))
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
            self._wake.wait(LOOK_SECONDS)

    def _deliver_all(self, *, others: bool) -> None:
        for segment in self.outbox.segments(others=others):
            try:
                self._deliver(segment)
            except BaseException:
                if not self._is_own(segment):
                    segment.release()
                raise

    def _is_own(self, segment: Segment) -> bool:
        return any(segment is own for own in self.outbox.segments(others=False))

    def _deliver(self, segment: Segment) -> None:
        while records := segment.read(self._batch):
            taken = 0
            try:
                for record in records:
                    self._ask(record)
                    taken += 1
            finally:
                # Those before the one that failed are not sent again.
                if taken:
                    segment.note_sent(records[:taken])
                    self.delivered += taken
            self._recovered()
        # The open one stays for the next records until the process ends.
        if not self.outbox.is_open(segment):
            self.outbox.finish(segment)

    def _ask(self, record: bytes) -> None:
        self._asked_at = self._clock()
        try:
            self._send([record])
        except RecordRefusedError as error:
            self._refuse(record, error)
        finally:
            self._asked_at = None

    def _refuse(self, record: bytes, error: RecordRefusedError) -> None:
        self.outbox.refuse(record)
        self.dropped += 1
        if self.dropped == 1:
            self._log.warning("%s: %s; what is refused is kept in %s", self.field, error, self.outbox.folder)

    def _report(self, problem: str) -> None:
        self.problem = problem
        if not self._reported:
            self._reported = True
            self._log.warning(
                "%s: %s. Nothing is lost and nothing waits: the %s stay in %s and are sent later",
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

    def _sleep(self, seconds: float) -> None:
        deadline = self._clock() + min(seconds, 300.0)
        # New records do not shorten the pause, the end does.
        while not self._closing and (left := deadline - self._clock()) > 0:
            time.sleep(min(left, 0.1))


def deliver_now(outbox: Outbox, send: Send, *, batch: int) -> tuple[int, int]:
    """Deliver what processes that ended have left, in the foreground.

    Args:
        outbox: Where the records lie.
        send: Delivers a batch.
        batch: Records between two notes of what is delivered.

    Returns:
        How many were delivered, how many were refused for ever.

    Raises:
        ReceiverAwayError: The receiver does not take them now; the rest stays.
    """
    delivery = Delivery(outbox, send, batch=batch, name="records", field="replay")
    with contextlib.closing(outbox):
        delivery._deliver_all(others=True)
    return delivery.delivered - delivery.dropped, delivery.dropped
