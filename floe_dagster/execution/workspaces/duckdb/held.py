"""Who holds the lock of a DuckDB file, in words that say what to do."""

from __future__ import annotations

import re

_LOCKED = re.compile(
    r'Could not set lock on file "(?P<file>[^"]+)"(?:: Conflicting lock is held in (?P<program>.+?) \(PID (?P<pid>\d+)\))?'
)


def lock_problem(message: str) -> str | None:
    """Return what is wrong and what to do, where DuckDB says that another process has its file open; None elsewhere.

    Args:
        message: Of DuckDB or dbt.
    """
    found = _LOCKED.search(message)
    if found is None:
        return None
    if found["pid"] is None:
        return f"another process has {found['file']} open; end it, then run again"
    program = found["program"].rpartition("/")[2]
    return (
        f"another process has {found['file']} open: {program}, PID {found['pid']}, perhaps a DuckDB shell. "
        f"End it (kill {found['pid']}), then run again"
    )
