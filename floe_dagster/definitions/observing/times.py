"""Times as Dagster, dbt, OpenTelemetry and OpenLineage give and take them."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def nanoseconds(seconds: float) -> int:
    """Return a time of Dagster's as OpenTelemetry counts it.

    Args:
        seconds: Since the epoch.
    """
    return int(seconds * 1_000_000) * 1_000


def when(seconds: float) -> datetime:
    """Return a time as OpenLineage's events have it.

    Args:
        seconds: Since the epoch.
    """
    return datetime.fromtimestamp(seconds, UTC)


def seconds_of(text: str | None) -> float:
    """Return a time of dbt's as seconds since the epoch: UTC, whether or not it says so; now where there is none."""
    if not text:
        return time.time()
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
