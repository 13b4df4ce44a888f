"""One pass over an outbox: every record that waits is sent, in order.

One record that the receiver cannot digest does not hold up the others: once it failed `ATTEMPTS` times with an answer, one
that waits behind it is tried. Where that one is taken, and the first fails once more, the first is set aside as refused;
where it is not, the receiver is away and everything stays.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence

from floe_dagster.errors import FloeError
from floe_dagster.observability.answers import ReceiverAwayError, RecordRefusedError, Send
from floe_dagster.observability.outbox import Outbox, Segment

ATTEMPTS = 5
"""So often a record fails with an answer before others tell whether it is the record or the receiver."""
LOOK_BEHIND = 20
"""Records behind a stuck one of which one is tried each time: the next one may be as bad."""


class SweepStoppedError(FloeError):
    """Somebody asked the sweep to stop; what it had not sent stays."""


class Sweep:
    """Sends what lies in an outbox, as often as it is asked to, and remembers what failed the last time.

    Args:
        outbox: Where the records lie.
        send: Delivers a batch.
        batch: Records between two notes of what is delivered: so many are sent again where a process is killed.
        name: What is delivered, for messages: "lineage events".
        field: The setting in the manifest that names the receiver, for messages.
        clock: Monotonic seconds.
        log: Takes what people should know.
        taken: Called when the receiver took something, or something was set aside.
    """

    def __init__(
        self,
        outbox: Outbox,
        send: Send,
        *,
        batch: int,
        name: str,
        field: str,
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
        taken: Callable[[], None] = lambda: None,
    ) -> None:
        self.outbox = outbox
        self.send = send
        self.delivered = 0
        self.refused = 0
        self.asked_at: float | None = None
        """When the request began that is under way, by the clock."""
        self._batch = batch
        self._name = name
        self._field = field
        self._clock = clock
        self._log = log
        self._taken = taken
        self._stopping = False
        self._told_of_partial = False
        self._told_of_unkept = False
        self._told_of_unreachable = False
        self._stuck: bytes | None = None
        self._failed = 0
        self._taken_early: set[bytes] = set()

    @property
    def gave_up(self) -> bool:
        """Whether the next record failed so often that nothing but its receiver can be wrong."""
        return self._failed >= ATTEMPTS

    def stop(self) -> None:
        """End the pass that is under way, if any, before its next record."""
        self._stopping = True

    def close(self) -> None:
        """End the connection to the receiver, where there is one."""
        close = getattr(self.send, "close", None)
        if close is not None:
            close()

    def deliver_all(self, *, others: bool) -> None:
        """Send all that waits.

        Args:
            others: Also what processes left that have ended.

        Raises:
            ReceiverAwayError: The receiver does not take the next record now; it and what follows stays.
            SweepStoppedError: `stop` was called.
            OSError: The outbox cannot be read; it names the file.
        """
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
            self._tell_unreachable()

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
            self._taken()
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
        if self._stopping:
            raise SweepStoppedError
        self.asked_at = self._clock()
        try:
            rejected = self.send([record])
        except RecordRefusedError as error:
            self._refuse(record, error)
            return False
        finally:
            self.asked_at = None
        self.delivered += 1
        if rejected and not self._told_of_partial:
            self._told_of_partial = True
            self._log.warning("%s: %s", self._field, rejected)
        return True

    def _refuse(self, record: bytes, error: RecordRefusedError) -> None:
        self.refused += 1
        if self.refused == 1:
            self._log.warning("%s: %s; what is refused is kept in %s", self._field, error, self.outbox.folder)
        try:
            self.outbox.refuse(record)
        except OSError as unkept:
            if not self._told_of_unkept:
                self._told_of_unkept = True
                self._log.warning(
                    "%s: refused %s are not kept from now on: %s", self._field, self._name, unkept
                )

    def _tell_unreachable(self) -> None:
        if self._told_of_unreachable or not self.outbox.unreachable:
            return
        self._told_of_unreachable = True
        path, reason = next(iter(self.outbox.unreachable.items()))
        more = len(self.outbox.unreachable) - 1
        self._log.warning(
            "%s: %s cannot be delivered from here: %s%s. Its %s wait: replay them as the user whose they are, "
            "or let this one read and write the file and its .lock",
            self._field,
            path,
            reason,
            f" (and {more} more)" if more else "",
            self._name,
        )


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
