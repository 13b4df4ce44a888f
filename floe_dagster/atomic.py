"""Files that are either the old or the new ones, whatever happens in between."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PUBLIC = 0o644
PRIVATE = 0o600


@contextmanager
def new_file(path: Path, *, mode: int = PUBLIC) -> Iterator[IO[bytes]]:
    """Yield a file to write to, which takes the place of `path` once all of it is on the disk.

    A reader, or a crash, sees the old file or the whole new one. Where anything is raised inside, the old file stays, and nothing
    else is left behind.

    Args:
        path: The file; its folder is made.
        mode: Permissions of the file. Nobody but the owner reads it before it has its place.

    Raises:
        OSError: The folder cannot be written or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_atomically(path: Path, content: bytes, *, mode: int = PUBLIC) -> bool:
    """Write `content` to `path`; see `new_file`.

    Args:
        path: The file; its folder is made.
        content: All of the content.
        mode: Permissions of the file.

    Returns:
        False where the file held the same content already and was left untouched.

    Raises:
        OSError: The folder cannot be written or the disk is full; the old file stays.
    """
    with contextlib.suppress(OSError):
        found = path.stat()
        is_private_enough = mode != PRIVATE or found.st_mode & 0o777 == PRIVATE
        if is_private_enough and found.st_size == len(content) and path.read_bytes() == content:
            return False
    with new_file(path, mode=mode) as file:
        file.write(content)
    return True


def copy_atomically(source: Path, path: Path) -> bool:
    """Copy a file to `path`; see `new_file`.

    Args:
        source: What is copied.
        path: The file; its folder is made.

    Returns:
        False where the file held the same content already and was left untouched.

    Raises:
        OSError: The source cannot be read, the folder cannot be written, or the disk is full; the old file stays.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_size == source.stat().st_size and path.read_bytes() == source.read_bytes():
            return False
    _copy(source, path)
    return True


def move_atomically(source: Path, path: Path) -> None:
    """Bring a finished file to its place, in another file system as well; see `new_file`.

    Args:
        source: The file, which is gone afterwards.
        path: Its place; the folder is made.

    Raises:
        OSError: The folder cannot be written or the disk is full; the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(source, path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(source, path)
        source.unlink()


def _copy(source: Path, path: Path) -> None:
    with open(source, "rb") as content, new_file(path) as file:
        shutil.copyfileobj(content, file, 1 << 20)
