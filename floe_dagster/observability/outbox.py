"""Records on their way to a receiver, kept in files until it has them.

A record is appended to a file before anybody tries to send it, so neither a receiver that is away nor a process that is
killed loses it. Each process writes segments of its own and holds a lock on each; a segment whose lock is free was left
by a process that ended, and whoever delivers next takes it over.

    <folder>/<time>-<writer>-<random>.records   one record a line, the newest last
    <folder>/<...>.sent                         how many bytes of it are delivered
    <folder>/refused.records                    what the receiver will never take, for a person to look at

A record may be delivered twice (a process that is killed between the answer and the note of it), never not at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floe_dagster.errors import FloeError

SEGMENT_BYTES = 4 << 20
LIMIT_BYTES = 512 << 20
"""What one outbox holds at most; an hour of outage is a hundredth of it."""
REFUSED_LIMIT_BYTES = 64 << 20
"""What is kept for a person to look at."""
REFUSED = "refused.records"
LOCK_SECONDS = 5.0
"""Nobody else knows the name of a new segment, so its lock is free at once, or not to be had."""
_SUFFIX = ".records"


class OutboxFullError(FloeError, OSError):
    """The outbox holds `LIMIT_BYTES`, or the disk takes no more."""


@dataclass(slots=True)
class Segment:
    """One file of records, of which this process holds the lock.

    Args:
        path: Of the file.
        lock: Held until `release`.
        sent: Bytes that are delivered.
    """

    path: Path
    lock: Any
    sent: int = 0

    @property
    def size(self) -> int:
        """Bytes of the file."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def read(self, limit: int) -> list[bytes]:
        """Return the next records, without their line ends.

        Args:
            limit: Records at most.

        Raises:
            OSError: It cannot be read; it names the file.
        """
        records: list[bytes] = []
        try:
            with self.path.open("rb") as file:
                file.seek(self.sent)
                for _ in range(limit):
                    line = file.readline()
                    # What a killed process had not written to its end was never there.
                    if not line.endswith(b"\n"):
                        break
                    records.append(line[:-1])
        except FileNotFoundError:
            return []
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        return records

    def note_sent(self, records: list[bytes]) -> None:
        """Remember that the next records are delivered."""
        self.sent += sum(len(record) + 1 for record in records)
        with contextlib.suppress(OSError):
            self.path.with_suffix(".sent").write_text(str(self.sent))

    def remove(self) -> None:
        """Delete the segment and give its lock back."""
        for path in (self.path, self.path.with_suffix(".sent")):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Give the lock back: somebody else may deliver the rest."""
        self.lock.release()
        if not self.path.exists():
            with contextlib.suppress(OSError):
                Path(self.lock.lock_file).unlink(missing_ok=True)


class Outbox:
    """Where the records for one receiver wait.

    Args:
        folder: Of this receiver alone; made where it is missing.
        limit_bytes: What it holds at most.
        segment_bytes: Beyond so many a new file begins, so that what is delivered is soon gone from the disk.
        refused_limit_bytes: What it keeps at most of what the receiver will never take.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limit_bytes: int = LIMIT_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        refused_limit_bytes: int = REFUSED_LIMIT_BYTES,
    ) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.segment_bytes = segment_bytes
        self.refused_limit_bytes = refused_limit_bytes
        self._lock = threading.RLock()
        self._own: list[Segment] = []
        self._file: Any = None
        self._written = 0
        self._pid = os.getpid()
        self._writer = _writer()
        self.unreachable: dict[Path, str] = {}
        """Segments that this process may not take over, with the reason in words, as of the last look at them."""

    def put(self, record: bytes) -> None:
        """Append one record; it is safe once this returns.

        Args:
            record: Without line ends.

        Raises:
            OutboxFullError: There is no room for it.
        """
        with self._lock:
            self._leave_to_parent()
            try:
                if self._file is None or self._written >= self.segment_bytes:
                    self._begin_segment()
                if self._file.write(record + b"\n") != len(record) + 1:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OutboxFullError:
                raise
            except OSError as error:
                # A record that is written in part must be the last one of its segment.
                self._end_segment()
                raise OutboxFullError(f"{self.folder} takes no more: {error.strerror or error}") from error
            self._written += len(record) + 1

    def _leave_to_parent(self) -> None:
        # A forked child must neither write nor remove its parent's segments.
        if self._pid != os.getpid():
            self._own, self._file, self._pid = [], None, os.getpid()
            self._writer = _writer()

    def _begin_segment(self) -> None:
        from filelock import FileLock

        self._end_segment()
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.pending_bytes() >= self.limit_bytes:
            raise OutboxFullError(
                f"{self.folder} holds {self.limit_bytes >> 20} MiB that nobody took, its limit; mend the receiver's address"
            )
        name = f"{time.time_ns()}-{self._writer}-{secrets.token_hex(3)}{_SUFFIX}"
        path = self.folder / name
        lock = FileLock(f"{path}.lock", thread_local=False)
        lock.acquire(timeout=LOCK_SECONDS)
        # Unbuffered: a record that was put outlives the process.
        self._file = path.open("ab", buffering=0)
        self._own.append(Segment(path, lock))
        self._written = 0

    def _end_segment(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def segments(self, *, others: bool = True) -> Iterator[Segment]:
        """Yield what is to be delivered, oldest first; whoever takes one removes or releases it.

        Args:
            others: Also those that processes left which ended.
        """
        if others:
            yield from self._left_behind()
        with self._lock:
            self._leave_to_parent()
            own = list(self._own)
        yield from own

    def owns(self, segment: Segment) -> bool:
        """Tell whether this outbox began a segment, and keeps its lock until it is closed."""
        with self._lock:
            return any(segment is own for own in self._own)

    def is_open(self, segment: Segment) -> bool:
        """Tell whether this process may still append to a segment."""
        with self._lock:
            return self._file is not None and bool(self._own) and self._own[-1] is segment

    def finish(self, segment: Segment) -> bool:
        """Remove a segment all of whose records are delivered; False where one has come meanwhile."""
        with self._lock:
            own = segment in self._own
            if segment.sent < segment.size and self._complete_records(segment):
                return False
            if own:
                if self.is_open(segment):
                    self._end_segment()
                self._own.remove(segment)
            segment.remove()
            return True

    @staticmethod
    def _complete_records(segment: Segment) -> bool:
        return bool(segment.read(1))

    def _left_behind(self) -> Iterator[Segment]:
        from filelock import FileLock, Timeout

        with self._lock:
            own = {segment.path for segment in self._own}
        self.unreachable = {}
        busy: set[str] = set()
        for path in sorted(self._files()):
            writer = path.name.split("-")[1:2]
            # Nor a later segment of one that ends just now: its records would overtake.
            if path in own or not busy.isdisjoint(writer):
                continue
            lock = FileLock(f"{path}.lock", thread_local=False)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                busy.update(writer)
                continue
            except OSError as error:
                self.unreachable[path] = _denied(path, error)
                continue
            if refusal := _refusal(path, os.O_RDONLY):
                self.unreachable[path] = _denied(path, refusal)
                lock.release()
                continue
            segment = Segment(path, lock, _sent(path))
            if path.exists():
                yield segment
            else:
                segment.release()

    def look_for_unreachable(self) -> dict[Path, str]:
        """Return the segments that this process may not take over, with the reason in words; takes none."""
        found = {}
        for path in sorted(self._files()):
            error = _refusal(path.with_name(f"{path.name}.lock"), os.O_RDWR) or _refusal(path, os.O_RDONLY)
            if error is not None:
                found[path] = _denied(path, error)
        return found

    def _files(self) -> list[Path]:
        try:
            return [
                path
                for path in self.folder.iterdir()
                if path.suffix == _SUFFIX and path.name != REFUSED and path.is_file()
            ]
        except OSError:
            return []

    def pending_bytes(self) -> int:
        """Return how many bytes wait, those of other processes included."""
        total = 0
        for path in self._files():
            with contextlib.suppress(OSError):
                total += max(path.stat().st_size - _sent(path), 0)
        return total

    def pending(self) -> int:
        """Return how many records wait, those of other processes included."""
        total = 0
        for path in self._files():
            with contextlib.suppress(OSError), path.open("rb") as file:
                file.seek(_sent(path))
                total += sum(line.endswith(b"\n") for line in file)
        return total

    def refuse(self, record: bytes) -> None:
        """Keep a record that the receiver will never take where a person finds it.

        Raises:
            OutboxFullError: So many are kept already that this one is not.
            OSError: It cannot be written.
        """
        path = self.folder / REFUSED
        with path.open("ab") as file:
            if file.tell() + len(record) + 1 > self.refused_limit_bytes:
                raise OutboxFullError(
                    f"{path} holds {self.refused_limit_bytes >> 20} MiB, its limit; look at it, then send it again or delete it"
                )
            file.write(record + b"\n")

    def refused(self) -> int:
        """Return how many records the receiver will never take."""
        with contextlib.suppress(OSError), (self.folder / REFUSED).open("rb") as file:
            return sum(line.endswith(b"\n") for line in file)
        return 0

    def requeue_refused(self) -> None:
        """Have what was refused delivered once more, for example after the receiver was mended."""
        name = f"{time.time_ns() // 1_000_000}-refused-{secrets.token_hex(3)}{_SUFFIX}"
        with contextlib.suppress(FileNotFoundError):
            (self.folder / REFUSED).rename(self.folder / name)

    def close(self) -> None:
        """Give back what is not delivered: another process will."""
        with self._lock:
            self._leave_to_parent()
            self._end_segment()
            own, self._own = self._own, []
            for segment in own:
                if segment.sent >= segment.size or not self._complete_records(segment):
                    segment.remove()
                else:
                    segment.release()


def _writer() -> str:
    # In pods that share a volume every process may have the number of another one.
    return f"{os.getpid()}.{secrets.token_hex(4)}"


def _refusal(path: Path, flags: int) -> OSError | None:
    """Return why a file that is there cannot be opened."""
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK))
    except FileNotFoundError:
        return None
    except OSError as error:
        return error
    return None


def _denied(path: Path, error: OSError) -> str:
    """Say why a segment cannot be taken over, and whose it is."""
    reason = error.strerror or type(error).__name__
    try:
        return f"{reason}; it is {path.owner()}'s"
    except (KeyError, OSError, NotImplementedError):
        return reason


def _sent(path: Path) -> int:
    try:
        noted = int(path.with_suffix(".sent").read_text() or 0)
        return min(max(noted, 0), path.stat().st_size)
    except (OSError, ValueError):
        return 0
