"""A receiver of OpenLineage events, that speaks the endpoint of Marquez and keeps what it gets."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.receivers.faults import Receiver
from tests.receivers.serving import Answer, HttpListener

PATH = "/api/v1/lineage"

Event = dict[str, Any]
Name = tuple[str, str]
"""Namespace and name of a job or a dataset."""


@dataclass(frozen=True)
class Received:
    """An event with how it came.

    Args:
        time: `time.time()` at receipt.
        headers: Their names in lower case.
    """

    event: Event
    time: float
    headers: dict[str, str]


@dataclass(frozen=True)
class LineageGraph:
    """What the events say together.

    Args:
        reads: From dataset to job.
        writes: From job to dataset.
    """

    reads: frozenset[tuple[Name, Name]]
    writes: frozenset[tuple[Name, Name]]

    def datasets(self) -> set[tuple[Name, Name]]:
        """Return the edges from dataset to dataset, through whichever job."""
        return {
            (source, target) for source, job in self.reads for writer, target in self.writes if writer == job
        }

    def __str__(self) -> str:
        edges = [(source, "dataset -> job", target) for source, target in self.reads]
        edges += [(source, "job -> dataset", target) for source, target in self.writes]
        return "\n".join(f"{'/'.join(s)}  {kind}  {'/'.join(t)}" for s, kind, t in sorted(edges))


class Lineage:
    """Events, and the questions that tests have about them."""

    def received(self) -> list[Received]:
        """Return the events with how they came, in order of receipt."""
        raise NotImplementedError

    def events(self) -> list[Event]:
        """Return the events in order of receipt."""
        return [received.event for received in self.received()]

    def runs(self) -> dict[str, list[Event]]:
        """Return the events of every run by its id."""
        found: dict[str, list[Event]] = {}
        for event in self.events():
            found.setdefault(event["run"]["runId"], []).append(event)
        return found

    def jobs(self) -> dict[Name, list[Event]]:
        """Return the events of every job."""
        found: dict[Name, list[Event]] = {}
        for event in self.events():
            found.setdefault(_name(event["job"]), []).append(event)
        return found

    def datasets(self) -> dict[Name, list[dict[str, Any]]]:
        """Return what the events say of every dataset, as input or output."""
        found: dict[Name, list[dict[str, Any]]] = {}
        for event in self.events():
            for dataset in [*(event.get("inputs") or ()), *(event.get("outputs") or ())]:
                found.setdefault(_name(dataset), []).append(dataset)
        return found

    def graph(self) -> LineageGraph:
        """Return the edges between jobs and datasets."""
        reads: set[tuple[Name, Name]] = set()
        writes: set[tuple[Name, Name]] = set()
        for event in self.events():
            job = _name(event["job"])
            reads |= {(_name(dataset), job) for dataset in event.get("inputs") or ()}
            writes |= {(job, _name(dataset)) for dataset in event.get("outputs") or ()}
        return LineageGraph(frozenset(reads), frozenset(writes))


class LineageReceiver(Receiver, Lineage):
    """Receives OpenLineage events on a free port of the loopback address.

    Args:
        on_kept: Called with every event before the sender has its answer.
    """

    def __init__(self, on_kept: Callable[[Received], None] | None = None) -> None:
        super().__init__()
        self._received: list[Received] = []
        self._on_kept = on_kept
        self._http = HttpListener(self, self._answer, _refusal)
        self.start_listening()

    @property
    def url(self) -> str:
        """What OpenLineage's clients call the URL: they append the path."""
        return f"http://127.0.0.1:{self._http.port}"

    def received(self) -> list[Received]:
        with self._changed:
            return list(self._received)

    def clear(self) -> None:
        """Forget what was received."""
        with self._changed:
            self._received.clear()
            self._requests.clear()

    def _answer(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if path != PATH:
            return _refusal(404, f"{path} is not served")
        try:
            event = json.loads(body)
        except ValueError as error:
            return _refusal(400, f"no JSON: {error}")
        if problem := _problem(event):
            return _refusal(400, problem)
        received = Received(event, time.time(), headers)
        with self._changed:
            self._received.append(received)
            if self._on_kept:
                self._on_kept(received)
            self._announce()
        return Answer(201)

    def _listen(self) -> None:
        self._http.start()

    def _unlisten(self) -> None:
        self._http.stop()


def _name(named: dict[str, Any]) -> Name:
    return named["namespace"], named["name"]


def _problem(event: Any) -> str:
    """Say why Marquez would not take an event; empty where it would."""
    if not isinstance(event, dict):
        return "an event is an object"
    for key in ("eventTime", "producer", "schemaURL"):
        if not isinstance(event.get(key), str):
            return f"{key} is missing"
    for owner, key in (("run", "runId"), ("job", "namespace"), ("job", "name")):
        if not isinstance(event.get(owner), dict) or not isinstance(event[owner].get(key), str):
            return f"{owner}.{key} is missing"
    try:
        datetime.fromisoformat(event["eventTime"])
    except ValueError:
        return f"eventTime is no time: {event['eventTime']}"
    try:
        uuid.UUID(event["run"]["runId"])
    except ValueError:
        return f"run.runId is no UUID: {event['run']['runId']}"
    for part in ("inputs", "outputs"):
        for position, dataset in enumerate(event.get(part) or ()):
            for key in ("namespace", "name"):
                if not isinstance(dataset, dict) or not isinstance(dataset.get(key), str):
                    return f"{part}[{position}].{key} is missing"
    return ""


def _refusal(status: int, message: str) -> Answer:
    body = json.dumps({"code": status, "message": message}).encode()
    return Answer(status, body, {"Content-Type": "application/json"})
