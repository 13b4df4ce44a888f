"""Uploads one file to an object store, also one that is still being written.

DuckDB writes a Parquet file from its front to its end (it can write to S3 itself, which takes nothing else), so what
is there can be sent while the rest is made, and little is left to send when the last row is written.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from floe_dagster.errors import FloeError

if TYPE_CHECKING:
    from pyiceberg.io import FileIO

CHUNK_BYTES = 1 << 20
"""PyArrow gathers parts of 10 MiB by itself; larger chunks are fresh memory each time, at twice the cost."""
LOOK_SECONDS = 0.02


class AbandonedError(FloeError):
    """The file will never be whole; what arrived is to be removed."""


class Growing:
    """A file that is being written.

    Args:
        path: Of the file.
        ended: Set when its writer has ended well.
        abandoned: Set when it has failed.
    """

    def __init__(self, path: Path, ended: threading.Event, abandoned: threading.Event) -> None:
        self.path = path
        self._ended = ended
        self._abandoned = abandoned

    def chunks(self) -> Iterator[bytes]:
        """Give the file's bytes, waiting for those that are still to come.

        Raises:
            AbandonedError: They will not come.
        """
        if self._abandoned.is_set():
            raise AbandonedError
        with open(self.path, "rb", buffering=0) as source:
            while True:
                # Looked at first: what was written before the end is read after it.
                is_whole = self._ended.is_set() or is_finished(self.path)
                while chunk := source.read(CHUNK_BYTES):
                    if self._abandoned.is_set():
                        raise AbandonedError
                    yield chunk
                if is_whole:
                    return
                if self._abandoned.wait(LOOK_SECONDS):
                    raise AbandonedError


def upload(chunks: Callable[[], Iterator[bytes]], io: FileIO, location: str, attempts: int) -> None:
    """Send a file, again where the store or the connection breaks off.

    Args:
        chunks: Gives the file's bytes from its beginning.
        io: Of the table.
        location: Where it goes.
        attempts: How often it is tried.

    Raises:
        OSError: The store refuses it, or every attempt failed.
        AbandonedError: The file will never be whole.
    """
    for attempt in range(attempts):
        try:
            with io.new_output(location).create(overwrite=True) as target:
                for chunk in chunks():
                    target.write(chunk)
            return
        except OSError as error:
            # The same bytes under the same name: sending them again is always safe.
            if attempt == attempts - 1 or _is_refusal(error):
                raise
            time.sleep(min(0.25 * 2**attempt, 8.0))


def is_finished(path: Path) -> bool:
    """Tell whether DuckDB has written a file to its end: the footer comes last."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            if file.tell() < 12:
                return False
            file.seek(-4, 2)
            if file.read() != b"PAR1":
                return False
        pq.read_metadata(path)
        return True
    except (OSError, pa.ArrowException):
        return False


def _is_refusal(error: OSError) -> bool:
    said = str(error)
    return any(
        sign in said for sign in ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY", "SIGNATURE")
    )
