"""How much memory DuckDB may take beside the processes of a run.

DuckDB's own default is 80 % of what the machine has, or of what the container may use where its control group has a limit
(https://duckdb.org/docs/stable/configuration/pragmas#memory-limit). In a small container the other 20 % do not hold the
run worker, the step and dbt, and the kernel ends one of them.
"""

from __future__ import annotations

import re
from functools import cache

BESIDE_DUCKDB = 1024 * 1024 * 1024
"""Bytes that run worker, step and dbt take, DuckDB's own overhead beyond its limit included."""
LEAST = 256 * 1024 * 1024
"""Bytes below which DuckDB cannot do much; it writes to disk what does not fit."""
DEFAULT_SHARE = 0.8
_AMOUNT = re.compile(r"^(\d+(?:\.\d+)?)\s*(bytes|[KMGT]i?B)$")
_UNITS = {
    "bytes": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
}


def parse_bytes(text: str) -> int:
    """Return the bytes of an amount as DuckDB writes and reads it, for example `4GB` or `819.1 MiB`.

    Raises:
        ValueError: It is none.
    """
    found = _AMOUNT.match(text.strip())
    if not found:
        raise ValueError(f"{text!r} is no amount of memory; write for example 4GB or 512MiB")
    return int(float(found[1]) * _UNITS[found[2]])


@cache
def available_bytes() -> int:
    """Return what this process may use: the limit of its container, else the machine's memory."""
    import duckdb

    # DuckDB knows both kinds of control groups, and takes its default from what they say.
    with duckdb.connect() as con:
        row = con.execute("select current_setting('memory_limit')").fetchone()
    assert row is not None
    return int(parse_bytes(str(row[0])) / DEFAULT_SHARE)


def duckdb_memory_limit(configured: str | None, available: int | None = None) -> str | None:
    """Return DuckDB's `memory_limit` for this machine or container; None where its own default fits.

    Args:
        configured: `plugins.compute.config.memory_limit`; it counts where it fits.
        available: Bytes that all processes together may use; found out when left out.
    """
    available = available_bytes() if available is None else available
    default = int(available * DEFAULT_SHARE)
    room = min(default, max(available - BESIDE_DUCKDB, LEAST, available // 4))
    if configured is not None and parse_bytes(configured) <= room:
        return configured
    return None if room == default and configured is None else f"{room // 1024}KiB"
