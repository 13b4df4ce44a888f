"""What is said of a DuckDB file that somebody else has open."""

from __future__ import annotations

import pytest

from floe_dagster.execution.workspaces.duckdb.held import lock_problem

HELD = (
    'IO Error: Could not set lock on file "/data/my shop.duckdb": Conflicting lock is held in '
    "/usr/local/my programs/python3.11 (PID 4711). See also https://duckdb.org/docs/current/connect/concurrency"
)


def test_the_holder_is_named_with_what_to_do() -> None:
    told = lock_problem(f"Runtime Error\n  {HELD}")
    assert told is not None and "\n" not in told
    assert "/data/my shop.duckdb" in told and "python3.11, PID 4711" in told and "kill 4711" in told


def test_a_holder_that_duckdb_does_not_know_is_not_made_up() -> None:
    told = lock_problem(
        'IO Error: Could not set lock on file "/data/shop.duckdb": Resource temporarily unavailable'
    )
    assert told is not None and "/data/shop.duckdb" in told and "PID" not in told and "kill" not in told


@pytest.mark.parametrize("message", ["", "IO Error: No space left on device", "could not set lock"])
def test_other_trouble_is_not_about_locks(message: str) -> None:
    assert lock_problem(message) is None
