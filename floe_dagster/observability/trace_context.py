"""Ids that every process of a run finds by itself, and the W3C `traceparent` that carries a trace from one to the next.

A run's spans come from several processes, some of which may be killed. Whoever comes last has to name spans that others
have begun, so the ids of runs and steps are derived from Dagster's ids. OpenLineage's run ids are, too: an event that is
sent twice says the same thing twice.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass
from functools import lru_cache

TRACEPARENT = "traceparent"
"""Run tag that carries the trace (W3C Trace Context)."""
_FORM = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-[ -~]*)?"
)
"""https://www.w3.org/TR/trace-context/#versioning-of-traceparent: a later version may have more after a dash."""
_LINEAGE_NAMESPACE = uuid.UUID("6f0f2c3e-6a49-5c0b-9d52-3c1f1f3a7b10")


@dataclass(frozen=True, slots=True)
class TraceParent:
    """A position in a trace.

    Args:
        trace_id: 128 bits.
        span_id: 64 bits.
        sampled: Whether the trace is kept.
    """

    trace_id: int
    span_id: int
    sampled: bool = True

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"

    @classmethod
    def parse(cls, text: str | None) -> TraceParent | None:
        """Return what a `traceparent` says; None where it says nothing valid.

        Of a version beyond 00 the four fields count that every later one begins with, as the standard asks.

        Args:
            text: The header's value.
        """
        found = _FORM.fullmatch(text or "")
        if found is None or found["version"] == "ff" or (found["version"] == "00" and found["more"]):
            return None
        trace_id, span_id = int(found["trace"], 16), int(found["span"], 16)
        if not trace_id or not span_id:
            return None
        return cls(trace_id, span_id, bool(int(found["flags"], 16) & 1))


def trace_id_of(run_id: str) -> int:
    """Return the trace id of a run that nobody gave one."""
    return _bits("trace", run_id, size=16)


def run_span_id(run_id: str) -> int:
    """Return the id of a run's span."""
    return _bits("run", run_id, size=8)


def step_span_id(run_id: str, step: str, attempt: int) -> int:
    """Return the id of the span of one attempt of a step.

    Args:
        run_id: Of the Dagster run.
        step: Key of the step.
        attempt: 0 for the first.
    """
    return _bits("step", run_id, step, str(attempt), size=8)


@lru_cache(maxsize=4096)
def lineage_run_id(run_id: str, name: str) -> str:
    """Return the OpenLineage run id of a part of a Dagster run: the same for every attempt of it.

    Args:
        run_id: Of the Dagster run, whose own OpenLineage run id is this very id.
        name: Of the part, for example dbt's unique id of a model.
    """
    return str(uuid.uuid5(_LINEAGE_NAMESPACE, f"{run_id}/{name}"))


def _bits(*parts: str, size: int) -> int:
    digest = hashlib.sha256("\0".join(parts).encode()).digest()[:size]
    # An id of zeros means "none".
    return int.from_bytes(digest, "big") or 1
