"""Both receivers in a process of its own, that write what they get to files.

    python -m tests.receivers --folder DIR

Whatever the sender was told is received is in the files by then, so that other processes, this one included, may be
killed at any time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from tests.receivers.lineage import Lineage, LineageReceiver, Received
from tests.receivers.otlp import OtlpReceiver, Telemetry
from tests.receivers.telemetry import Log, Metric, Span, SpanEvent, SpanLink

ROOT = Path(__file__).resolve().parents[2]
FILES: dict[type, str] = {
    Span: "spans.jsonl",
    Metric: "metrics.jsonl",
    Log: "logs.jsonl",
    Received: "lineage.jsonl",
}
PORTS = "ports.json"
START_SECONDS = 30


class KeptReceivers(Telemetry, Lineage):
    """Receivers that outlive the test's processes, and what their files hold.

    Args:
        folder: For the files; the process is started in it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        # Those of a process that was there before.
        (folder / PORTS).unlink(missing_ok=True)
        with (folder / "receivers.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.receivers", "--folder", str(folder), "--attached"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not (folder / PORTS).exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise AssertionError((folder / "receivers.log").read_text(errors="replace"))
            time.sleep(0.05)
        ports = json.loads((folder / PORTS).read_text())
        self.grpc_endpoint: str = ports["grpc_endpoint"]
        self.http_endpoint: str = ports["http_endpoint"]
        self.lineage_url: str = ports["lineage_url"]

    def spans(self) -> list[Span]:
        return [
            Span(
                **span
                | {
                    "events": tuple(SpanEvent(**event) for event in span["events"]),
                    "links": tuple(SpanLink(**link) for link in span["links"]),
                }
            )
            for span in self._read(Span)
        ]

    def metrics(self) -> list[Metric]:
        return [
            Metric(**metric | {"bounds": tuple(metric["bounds"]), "buckets": tuple(metric["buckets"])})
            for metric in self._read(Metric)
        ]

    def logs(self) -> list[Log]:
        return [Log(**log) for log in self._read(Log)]

    def received(self) -> list[Received]:
        return [Received(**received) for received in self._read(Received)]

    def close(self) -> None:
        """End the process; the files stay."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self, kind: type) -> list[dict[str, Any]]:
        path = self.folder / FILES[kind]
        # The last line has no end while it is being written.
        lines = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]


def main() -> int:
    """Receive until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="where the files go")
    parser.add_argument(
        "--attached", action="store_true", help="end with whoever holds the other end of stdin"
    )
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    if options.attached:
        threading.Thread(target=_until_stdin_ends, args=[ended], daemon=True).start()
    with contextlib.ExitStack() as stack:
        files = {kind: stack.enter_context((folder / name).open("ab")) for kind, name in FILES.items()}

        def keep(one: Any) -> None:
            files[type(one)].write(json.dumps(asdict(one)).encode() + b"\n")
            files[type(one)].flush()

        otlp = stack.enter_context(OtlpReceiver(keep))
        lineage = stack.enter_context(LineageReceiver(keep))
        ports = {
            "grpc_endpoint": otlp.grpc_endpoint,
            "http_endpoint": otlp.http_endpoint,
            "lineage_url": lineage.url,
            "pid": os.getpid(),
        }
        # Whoever sees the file may read it at once.
        staging = folder / f"{PORTS}.{os.getpid()}"
        staging.write_text(json.dumps(ports))
        staging.replace(folder / PORTS)
        ended.wait()
    return 0


def _until_stdin_ends(ended: threading.Event) -> None:
    """Notice that the tests are gone, however they ended."""
    # Not through sys.stdin, whose lock the interpreter wants when it ends.
    while os.read(0, 1):
        pass
    ended.set()
