"""One thing that a check of the platform looked at, and what it saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

SLOW_SECONDS = 5.0

Seen = tuple[str, dict[str, Any]]
"""A message, and more for machines."""
Explained = tuple[str, str]
"""What is wrong, and what to do."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """One thing that was looked at.

    Args:
        name: catalog, credentials, versions, namespace, storage, clock, engine, engine-version, engine-catalog or
            engine-schema.
        passed: Whether it is as it should be.
        message: What was seen.
        fix: What to do; empty where it passed.
        seconds: How long it took.
        details: More, for machines.
    """

    name: str
    passed: bool
    message: str
    fix: str = ""
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)


def timed(name: str, look: Callable[[], Seen], explain: Callable[[Exception], Explained]) -> HealthCheck:
    """Look at one thing.

    Args:
        name: Of the check.
        look: Returns what was seen; raises where it is not as it should be.
        explain: Says of such an error what is wrong, and what to do.
    """
    begun = time.perf_counter()
    try:
        message, details = look()
    except Exception as error:
        message, fix = explain(error)
        return HealthCheck(name, False, message, fix, time.perf_counter() - begun)
    seconds = time.perf_counter() - begun
    if seconds > SLOW_SECONDS:
        message += f"; it took {seconds:.1f} s"
    return HealthCheck(name, True, message, "", seconds, details)
