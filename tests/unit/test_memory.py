"""How much memory DuckDB is given beside the processes of a run."""

from __future__ import annotations

import duckdb
import pytest

from floe_dagster.memory import available_bytes, duckdb_memory_limit, parse_bytes

GIB = 1024**3


def applied(limit: str | None) -> int | None:
    """Return the bytes that DuckDB makes of a limit."""
    if limit is None:
        return None
    with duckdb.connect() as con:
        con.execute(f"set memory_limit = '{limit}'")
        [text] = con.execute("select current_setting('memory_limit')").fetchone() or ()
    return parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1GB", 10**9),
        ("1 GiB", GIB),
        ("819.1 MiB", int(819.1 * 1024**2)),
        ("512KiB", 512 * 1024),
        ("9 bytes", 9),
    ],
)
def test_amounts_are_those_of_duckdb(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "1", "GB", "1 gib", "-1GB", "1Gi"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no amount of memory"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("configured", "available", "expected"),
    [
        (None, 64 * GIB, None),
        (None, 4 * GIB, 3 * GIB),
        (None, 2 * GIB, 1 * GIB),
        (None, 1 * GIB, GIB // 4),
        (None, GIB // 2, GIB // 4),
        ("2GB", 64 * GIB, 2 * 10**9),
        ("2GB", 4 * GIB, 2 * 10**9),
        ("8GB", 4 * GIB, 3 * GIB),
        ("2GB", 1 * GIB, GIB // 4),
        ("100GB", 64 * GIB, int(0.8 * 64 * GIB)),
    ],
)
def test_the_limit_leaves_room_for_the_processes_of_the_run(
    configured: str | None, available: int, expected: int | None
) -> None:
    found = applied(duckdb_memory_limit(configured, available))
    assert found == (None if expected is None else pytest.approx(expected, rel=0.1))


def test_what_is_available_is_what_duckdb_sees() -> None:
    with duckdb.connect() as con:
        [text] = con.execute("select current_setting('memory_limit')").fetchone() or ()
    assert available_bytes() * 0.8 == pytest.approx(parse_bytes(text), rel=0.01)
