"""One writer at a time, on this machine; between machines a pool of Dagster does it, and `iceberg.leases`."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from floe_dagster.execution.errors import WorkspaceError

LOCK_TIMEOUT_SECONDS = 1800.0


@contextmanager
def only_writer(path: Path, what: str, log: logging.Logger) -> Iterator[None]:
    """Hold the lock of what is written.

    Args:
        path: Of the lock file; its folder is made.
        what: For people.
        log: Is told every ten seconds that another writer is waited for.

    Raises:
        WorkspaceError: It was not to be had; a retry may help.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    begun = time.monotonic()
    while True:
        try:
            lock.acquire(timeout=10)
            break
        except Timeout:
            waited = time.monotonic() - begun
            if waited > LOCK_TIMEOUT_SECONDS:
                raise WorkspaceError(
                    f"another process writes {what} for over {waited:.0f} seconds; end it, or wait",
                    transient=True,
                ) from None
            log.info(f"waiting for another writer of {what} ({waited:.0f} s)")
    try:
        yield
    finally:
        lock.release()


def identity(path: Path) -> str:
    """Return what tells this folder from those of other machines; made at first.

    Args:
        path: Of the file that keeps it, which the holder of a lock alone reads and writes.
    """
    try:
        if found := path.read_text(encoding="ascii").strip():
            return found
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    made = uuid.uuid4().hex
    path.write_text(made, encoding="ascii")
    return made
