"""Trino's own word on queries: what they cost, and their end when nobody waits for them any more."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from floe_dagster.engines.errors import EngineError
from floe_dagster.engines.trino.access import TrinoAccess

_UNITS = {"B": 1, "kB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40, "PB": 2**50}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(r"^(\d+(?:\.\d+)?)\s*([A-Za-z]+)$")


@dataclass(frozen=True, slots=True)
class QueryCost:
    """What one query took.

    Args:
        query_id: Trino's.
        elapsed_seconds: From its creation to its end.
        queued_seconds: How long it waited to begin.
        cpu_seconds: Processor time on all nodes.
        peak_memory_bytes: The most that it held at once, on all nodes.
        read_bytes: Read from the storage.
        written_bytes: Written to the storage.
        splits: Pieces of work.
    """

    query_id: str
    elapsed_seconds: float
    queued_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    read_bytes: int
    written_bytes: int
    splits: int


class TrinoQueries:
    """The queries of one run, as Trino knows them.

    Args:
        access: The way to Trino.
        client_tag: All of the run's queries bear it, and no others.
    """

    def __init__(self, access: TrinoAccess, client_tag: str) -> None:
        self._access = access
        self._tag = client_tag
        self._costs: dict[str, QueryCost] = {}

    def cost(self, query_id: str, *, ask: bool = True) -> QueryCost | None:
        """Return what a query took; None where Trino has forgotten it, or does not say.

        Costs are an extra: no failure here fails a run.

        Args:
            query_id: Trino's.
            ask: Whether Trino is asked for what is not known yet.
        """
        if ask and query_id not in self._costs:
            found = self._ask(f"query/{quote(query_id, safe='')}?pruned=true")
            if isinstance(found, dict):
                self._keep(query_id, found)
        return self._costs.get(query_id)

    @contextmanager
    def remembered(self, every_seconds: float = 60.0) -> Iterator[None]:
        """Keep what the run's queries took as they end: Trino itself forgets them after a quarter of an hour.

        Args:
            every_seconds: How often Trino is asked.
        """
        over = threading.Event()

        def watch() -> None:
            while not over.wait(every_seconds):
                self.remember()

        thread = threading.Thread(target=watch, name="floe-trino-costs", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()

    def remember(self) -> None:
        """Keep what those of the run's queries took that have ended."""
        for query in self._ours():
            if query.get("state") == "FINISHED":
                self._keep(str(query["queryId"]), query)

    def _ours(self) -> list[Mapping[str, Any]]:
        """Return the run's queries as Trino lists them; none where it does not say."""
        found = self._ask("query")
        return [query for query in found if self._is_ours(query)] if isinstance(found, list) else []

    def _ask(self, path: str) -> Any:
        from requests import RequestException

        try:
            with self._access.session() as session:
                answer = session.get(f"{self._access.base_url}/v1/{path}")
                return answer.json() if answer.status_code == 200 else None
        except (EngineError, RequestException, ValueError):
            return None

    def _keep(self, query_id: str, found: Mapping[str, Any]) -> None:
        stats = found.get("queryStats")
        if isinstance(stats, dict):
            self._costs[query_id] = QueryCost(
                query_id,
                elapsed_seconds=seconds(stats.get("elapsedTime")),
                queued_seconds=seconds(stats.get("queuedTime")),
                cpu_seconds=seconds(stats.get("totalCpuTime")),
                peak_memory_bytes=size(
                    stats.get("peakTotalMemoryReservation") or stats.get("peakUserMemoryReservation")
                ),
                read_bytes=size(stats.get("physicalInputDataSize")),
                written_bytes=size(stats.get("physicalWrittenDataSize")),
                splits=int(stats.get("totalDrivers") or 0),
            )

    def retry_policy(self) -> str | None:
        """Return what Trino repeats of the run's queries when a node goes away: NONE, QUERY or TASK; None where it does not say.

        The session property of that name is hidden; what a query was begun with is not.
        """
        policies = (query.get("retryPolicy") for query in self._ours())
        return next((str(policy) for policy in policies if policy), None)

    def cancel(self) -> list[str]:
        """End every query of the run that still runs or waits; returns their ids.

        A client that just goes away leaves its queries running for minutes.
        """
        from requests import RequestException

        ended: list[str] = []
        try:
            with self._access.session() as session:
                for query in self._ours():
                    if query.get("state") not in ("FINISHED", "FAILED"):
                        query_id = str(query["queryId"])
                        session.delete(f"{self._access.base_url}/v1/query/{quote(query_id, safe='')}")
                        ended.append(query_id)
        except (EngineError, RequestException):
            # It is a courtesy to the cluster; Trino gives up by itself in time.
            return ended
        return ended

    def _is_ours(self, query: Any) -> bool:
        if not isinstance(query, dict):
            return False
        tags = query.get("clientTags") or (query.get("session") or {}).get("clientTags") or ()
        return self._tag in tags


def size(text: Any) -> int:
    """Return the bytes of a size as Trino writes it, such as `1.5MB`; 0 where it says none."""
    found = _QUANTITY.match(str(text or ""))
    return round(float(found[1]) * _UNITS.get(found[2], 0)) if found else 0


def seconds(text: Any) -> float:
    """Return the seconds of a duration as Trino writes it, such as `1.20m`; 0 where it says none."""
    found = _QUANTITY.match(str(text or ""))
    return float(found[1]) * _SECONDS.get(found[2], 0.0) if found else 0.0
