"""Records for the tests of delivery, senders for them, and what became of them."""

from __future__ import annotations

import base64
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from floe_dagster.observability.answers import ReceiverAwayError
from floe_dagster.observability.delivery import Delivery
from floe_dagster.observability.outbox import REFUSED, Outbox
from floe_dagster.observability.receiver import Receiver
from floe_dagster.observability.sending import lineage_sender
from tests.receivers import FaultMode, LineageReceiver, OtlpReceiver

FIELD = "observability.lineage.endpoint of shop"
TROUBLE = [
    FaultMode.STATUS_500,
    FaultMode.TOO_MANY,
    FaultMode.BLACK_HOLE,
    FaultMode.RESET,
    FaultMode.UNAUTHORIZED,
]


def event(number: int) -> bytes:
    made: dict[str, Any] = {
        "eventTime": "2026-01-02T03:04:05+00:00",
        "producer": "https://example.com/tests",
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "eventType": "START",
        "run": {"runId": str(uuid.UUID(int=number))},
        "job": {"namespace": "floe", "name": "shop"},
    }
    return json.dumps(made).encode()


def spans(number: int) -> bytes:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.name, span.trace_id, span.span_id = str(number), b"t" * 16, number.to_bytes(8, "big")
    return base64.b64encode(request.SerializeToString())


def numbers(receiver: LineageReceiver | OtlpReceiver) -> list[int]:
    if isinstance(receiver, OtlpReceiver):
        return [int(span.name) for span in receiver.spans()]
    return [uuid.UUID(found["run"]["runId"]).int for found in receiver.events()]


@contextmanager
def delivering(folder: Path, send: Callable[[Sequence[bytes]], Any], *, batch: int = 5) -> Iterator[Delivery]:
    delivery = Delivery(Outbox(folder), send, batch=batch, name="lineage events", field=FIELD)
    try:
        yield delivery
    finally:
        delivery.close(0)


def lineage_at(url: str, *, seconds: float = 5, **options: Any) -> Callable[[Sequence[bytes]], Any]:
    return lineage_sender(Receiver(url=url, answer_seconds=seconds, field=FIELD, **options))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def until(look: Callable[[], Any], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def left_behind(folder: Path, records: Sequence[bytes]) -> Outbox:
    outbox = Outbox(folder)
    for record in records:
        outbox.put(record)
    outbox.close()
    return outbox


def picky(bad: Sequence[bytes], error: Exception) -> tuple[list[bytes], Callable[[Sequence[bytes]], Any]]:
    """Return what a receiver took that answers some records with an error, and how to send to it."""
    took: list[bytes] = []

    def send(records: Sequence[bytes]) -> None:
        for record in records:
            if record in bad:
                raise error
            took.append(record)

    return took, send


def answered(said: str = "answers 500") -> ReceiverAwayError:
    return ReceiverAwayError(said, answered=True)


def records_of(folder: Path, count: int) -> list[bytes]:
    records = [b"%d" % number for number in range(count)]
    left_behind(folder, records)
    return records


def refused_in(folder: Path) -> list[bytes]:
    return (folder / REFUSED).read_bytes().splitlines() if (folder / REFUSED).exists() else []


class Kept(BaseHTTPRequestHandler):
    """Keeps the headers of requests."""

    seen: list[dict[str, str]]
    answer = b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append({name.lower(): value for name, value in self.headers.items()} | {"": self.path})
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *arguments: Any) -> None:
        pass
