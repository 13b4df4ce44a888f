"""Files that are either the old or the new ones, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes, *, mode: int = 0o644) -> bool:
    """Write `content` to `path` so that a reader, or a crash, sees the old file or the whole new one.

    Args:
        path: The file; its folder is made.
        content: All of the content.
        mode: Permissions of the file.

    Returns:
        False where the file held the same content already and was left untouched.

    Raises:
        OSError: The folder cannot be written or the disk is full; the old file stays.
    """
    try:
        if path.stat().st_size == len(content) and path.read_bytes() == content:
            return False
    except OSError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return True
