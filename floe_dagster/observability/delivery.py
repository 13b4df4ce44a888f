"""Delivers an outbox in the background: in order, with backoff, and without anybody waiting for it.

A run never waits for a receiver that is away: at its end it waits for answers as long as they come, and leaves the rest
to whoever delivers next.

Nor does one record that the receiver cannot digest hold up the others: once it failed `ATTEMPTS` times with an answer, one
that waits behind it is tried. Where that one is taken, and the first fails once more, the first is set aside as refused;
where it is not, the receiver is away and everything stays.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from floe_dagster.observability.outbox import Outbox, OutboxFullError, Segment

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
LOOK_SECONDS = 10.0
"""How often a process that has nothing to send looks for what others left."""
PATIENCE_SECONDS = 0.5
"""A flush waits so long for one answer; a receiver that needs longer gets the rest later."""
JOIN_SECONDS = 1.0
ATTEMPTS = 5
"""So often a record fails with an answer before others tell whether it is the record or the receiver."""
LOOK_BEHIND = 20
"""Records behind a stuck one of which one is tried each time: the next one may be as bad."""
REPLAY_PAUSE_SECONDS = 0.1

_log = logging.getLogger("floe_dagster.observability")


class ReceiverAwayError(Exception):
    """The receiver does not take records now; it may later.

    Args:
        message: What is wrong, for a person.
        retry_after: Seconds that the receiver asks to wait.
        answered: It did answer, so that this one record may be what is wrong.
    """

    def __init__(self, message: str, retry_after: float | None = None, *, answered: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.answered = answered


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


class RecordRefusedError(Exception):
    """The receiver will never take this record."""


Send = Callable[[Sequence[bytes]], str | None]
"""Delivers records, in order; raises `ReceiverAwayError` or `RecordRefusedError`.

Returns in words what the receiver rejected of a record that it took otherwise, where there is any.
"""

_told: dict[tuple[str, str], Delivery] = {}
"""Who told of a setting's problem: traces and metrics share a receiver, and one of them is enough."""


class _Segments:
    """The segments to deliver, one after the other, with a view of those that follow.

    Args:
        outbox: Where they lie.
        others: Also those that processes left which ended.
    """

    def __init__(self, outbox: Outbox, *, others: bool) -> None:
        self._outbox = outbox
        self._rest = outbox.segments(others=others)
        self._ahead: list[Segment] = []

    def __iter__(self) -> Iterator[Segment]:
        while segment := self._ahead.pop(0) if self._ahead else next(self._rest, None):
            yield segment

    def records_behind(self, segment: Segment, limit: int) -> list[bytes]:
        """Return what follows the next record of a segment, so many at most."""
        records = segment.read(1 + limit)[1:]
        seen = 0
        while len(records) < limit:
            if seen == len(self._ahead):
                following = next(self._rest, None)
                if following is None:
                    break
                self._ahead.append(following)
            records += self._ahead[seen].read(limit - len(records))
            seen += 1
        return records

    def release(self) -> None:
        """Give back those whose turn did not come."""
        for segment in self._ahead:
            if not self._outbox.owns(segment):
                segment.release()


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
        self.lost = 0
        self.refused = 0
        self._reported = False
        self._losing_since: int | None = None
        self._told_of_partial = False
        self._told_of_unkept = False
        self._stuck: bytes | None = None
        self._failed = 0
        self._taken_early: set[bytes] = set()
        self._latest = float("inf")

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
        deadline, puts = min(self._clock() + seconds, self._latest), self._puts
        while self._delivered_puts < puts:
            asked = self._asked_at
            if self.problem is not None or self._clock() >= deadline or not self._works():
                return False
            if asked is not None and self._clock() - asked > PATIENCE_SECONDS:
                return False
            time.sleep(0.005)
        return True

    def end_within(self, seconds: float) -> None:
        """Have all that waits for this delivery from now on, `flush` and `close`, wait so long altogether."""
        self._latest = self._clock() + seconds

    def close(self, seconds: float) -> bool:
        """Flush, then stop; what is not delivered is left to others."""
        done = self.flush(0.0 if self._closing else seconds)
        self._closing = True
        self._wake.set()
        if self._thread is not None and self._asked_at is None:
            self._thread.join(timeout=min(JOIN_SECONDS, max(self._latest - self._clock(), 0.0)))
        if not self._works():
            self.outbox.close()
        self._forget_told()
        return done

    def _works(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _work(self) -> None:
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
                self._deliver_all(others=others)
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
            self._wake.wait(LOOK_SECONDS)

    def _deliver_all(self, *, others: bool) -> None:
        segments = _Segments(self.outbox, others=others)
        try:
            for segment in segments:
                try:
                    self._deliver(segment, segments)
                except BaseException:
                    if not self.outbox.owns(segment):
                        segment.release()
                    raise
        finally:
            segments.release()

    def _deliver(self, segment: Segment, segments: _Segments) -> None:
        while records := segment.read(self._batch):
            done = 0
            try:
                for record in records:
                    self._ask(record)
                    done += 1
            except ReceiverAwayError as error:
                self._note(segment, records[:done])
                if not self._is_stuck(records[done], error):
                    raise
                self._decide(records[done], segments.records_behind(segment, LOOK_BEHIND), error)
                done, records = 1, [records[done]]
            except BaseException:
                self._note(segment, records[:done])
                raise
            self._note(segment, records[:done])
            self._recovered()
        # The open one stays for the next records until the process ends.
        if not self.outbox.is_open(segment):
            self.outbox.finish(segment)

    @staticmethod
    def _note(segment: Segment, records: list[bytes]) -> None:
        # Those before the one that failed are not sent again.
        if records:
            segment.note_sent(records)

    def _is_stuck(self, record: bytes, error: ReceiverAwayError) -> bool:
        """Count the failures of the record whose turn it is; True where others have to tell what is wrong."""
        if record != self._stuck:
            self._stuck, self._failed = record, 0
        if error.answered:
            self._failed += 1
        return error.answered and self._failed >= ATTEMPTS

    def _decide(self, stuck: bytes, behind: Sequence[bytes], error: ReceiverAwayError) -> None:
        """Set a stuck record aside where the receiver takes another one; the receiver is away where it does not.

        Raises:
            ReceiverAwayError: It does not, or there is no other.
        """
        others = [record for record in behind if record != stuck and record not in self._taken_early]
        if not others:
            raise error
        other = others[(self._failed - ATTEMPTS) % len(others)]
        try:
            taken = self._ask(other)
        except ReceiverAwayError:
            raise error from None
        # It is not sent again when its turn comes.
        self._taken_early.add(other)
        if not taken:
            raise error
        try:
            # The receiver may have come back between the two.
            self._ask(stuck)
        except ReceiverAwayError as again:
            if not again.answered:
                raise
            self._refuse(stuck, RecordRefusedError(f"{again}, but takes others"))

    def _ask(self, record: bytes) -> bool:
        """Send a record; False where it is refused for ever."""
        if record in self._taken_early:
            self._taken_early.remove(record)
            return True
        self._asked_at = self._clock()
        try:
            rejected = self._send([record])
        except RecordRefusedError as error:
            self._refuse(record, error)
            return False
        finally:
            self._asked_at = None
        self.delivered += 1
        if rejected and not self._told_of_partial:
            self._told_of_partial = True
            self._log.warning("%s: %s", self.field, rejected)
        return True

    def _refuse(self, record: bytes, error: RecordRefusedError) -> None:
        self.refused += 1
        if self.refused == 1:
            self._log.warning("%s: %s; what is refused is kept in %s", self.field, error, self.outbox.folder)
        try:
            self.outbox.refuse(record)
        except OSError as unkept:
            if not self._told_of_unkept:
                self._told_of_unkept = True
                self._log.warning(
                    "%s: refused %s are not kept from now on: %s", self.field, self.name, unkept
                )

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
        deadline = self._clock() + min(seconds, 300.0)
        # New records do not shorten the pause, the end does.
        while not self._closing and (left := deadline - self._clock()) > 0:
            time.sleep(min(left, 0.1))


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
    delivery = Delivery(outbox, send, batch=batch, name="records", field="replay")
    with contextlib.closing(outbox):
        while True:
            try:
                delivery._deliver_all(others=True)
                return delivery.delivered, delivery.refused
            except ReceiverAwayError as error:
                if not error.answered or delivery._failed >= ATTEMPTS:
                    raise ReplayEndedError(
                        str(error), delivered=delivery.delivered, refused=delivery.refused
                    ) from error
            time.sleep(REPLAY_PAUSE_SECONDS)
