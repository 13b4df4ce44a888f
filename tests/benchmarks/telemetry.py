"""What traces, metrics and lineage cost a run: with receivers that take them, and with receivers in trouble."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from floe_dagster.home import FloeHome
from floe_dagster.observability.outbox import Outbox
from tests.benchmarks.projects import MANIFEST, Project, floe, generate, seconds
from tests.benchmarks.report import Row, table
from tests.conftest import ROOT
from tests.receivers import FaultMode, LineageReceiver, OtlpReceiver

SIGNALS = ("traces", "metrics", "lineage")
OFF = """\
observability:
  tracing: {exporter: none}
  lineage: {transport: noop}
"""
ON = """\
observability:
  tracing: {{endpoint: '{tracing}', protocol: grpc}}
  lineage: {{transport: http, endpoint: '{lineage}'}}
"""
TROUBLES: dict[str, FaultMode | None] = {
    "down": None,
    "silent": FaultMode.BLACK_HOLE,
    "answering after 10 s": FaultMode.SLOW,
    "answering 500": FaultMode.STATUS_500,
}
RUN = """
import json, resource, time
from pathlib import Path
import dagster as dg
from floe_dagster import load_product_definitions

defs = load_product_definitions({folder!r})
job = defs.resolve_job_def('bench_run')
with dg.DagsterInstance.get() as instance:
    begun = time.time()
    outcome = job.execute_in_process(instance=instance)
events = outcome.asset_materializations_for_node('bench_dbt')
assert outcome.success and len(events) == {models}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
Path({answer!r}).write_text(json.dumps([begun, peak]))
"""
EVENTS = """
import json, resource, sys, time, uuid
from datetime import UTC, datetime
from pathlib import Path
from floe_dagster.home import FloeHome
from floe_dagster.observability.lineage.datasets import DatasetName
from floe_dagster.observability.lineage.emitter import LineageEmitter
from floe_dagster.observability.lineage.events import LineageRun, ProductLineage
from floe_dagster.observability.lineage.facets import TableState, input_dataset, output_dataset
from floe_dagster.schemas.artifacts import ObservabilityConfig

run = LineageRun(str(uuid.UUID(int=7)), 'bench_run', str(uuid.UUID(int=7)))
product = ProductLineage('bench', 'floe', 'bench@example.com', 'Bench.', {{}}, lambda path: None, run,
                         ('DuckDB', '2.0.0'))
source = DatasetName('s3://warehouse', 'bench/source')

def event(number):
    asset = {{'id': f'model.bench.m{{number}}', 'name': f'm{{number}}', 'type': 'model', 'engine': 'duckdb', 'owners': ['bench'],
             'tags': [], 'description': 'Generated.', 'file': f'models/m{{number}}.sql'}}
    columns = [(f'column_{{n}}', 'BIGINT', 'A number.') for n in range(20)]
    state = TableState(columns, {{name: [(source, name)] for name, _, _ in columns}}, 10, 1000, 1, '77')
    return product.asset_event('COMPLETE', datetime.now(UTC), asset, sql='select * from source',
                               inputs=[input_dataset(source)],
                               outputs=[output_dataset(DatasetName('s3://warehouse', asset['name']), state, catalog=None)])

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
"""
OURS = """
emitter = LineageEmitter('bench', ObservabilityConfig(lineage_endpoint={url!r}), FloeHome(Path({home!r})))
emitter.emit(event(0))
assert emitter.delivery.flush(60)
before, begun = peak(), time.perf_counter()
building = 0.0
for number in range({count}):
    at = time.perf_counter()
    made = event(number)
    building += time.perf_counter() - at
    emitter.emit(made)
handed = time.perf_counter() - begun - building
until = time.monotonic() + 600
# A flush gives up on one late answer; what is measured here is all of them.
while not emitter.delivery.flush(600):
    assert time.monotonic() < until, emitter.delivery.problem
    time.sleep(0.01)
elapsed = time.perf_counter() - begun - building
Path({answer!r}).write_text(json.dumps([elapsed, handed, peak() - before]))
emitter.close()
"""
CLIENT = """
from openlineage.client.transport.http import HttpConfig, HttpTransport
transport = HttpTransport(HttpConfig(url={url!r}))
transport.emit(event(0))
before, begun = peak(), time.perf_counter()
building = 0.0
for number in range({count}):
    at = time.perf_counter()
    made = event(number)
    building += time.perf_counter() - at
    transport.emit(made)
elapsed = time.perf_counter() - begun - building
Path({answer!r}).write_text(json.dumps([elapsed, elapsed, peak() - before]))
"""


@dataclass
class Arm:
    """A product with receivers of its own, and what its runs took.

    Args:
        project: The product.
        environment: Of its runs.
        otlp: Receives its traces and metrics; None where nothing is sent.
        lineage: Receives its events.
        trouble: Whether the receivers are in trouble.
    """

    project: Project
    environment: Mapping[str, str]
    otlp: OtlpReceiver | None
    lineage: LineageReceiver | None
    trouble: bool
    times: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    waiting: list[dict[str, int]] = field(default_factory=list)
    unclean: list[str] = field(default_factory=list)

    def run(self, models: int, *, counts: bool, processor: int) -> None:
        """Run the product once, in a process of its own, until that process has ended.

        Args:
            models: How many it has.
            counts: Whether the run is one of those that are compared.
            processor: The only one that the run and what it starts may use.
        """
        for receiver in (self.otlp, self.lineage):
            if receiver is not None:
                receiver.clear()
        shutil.rmtree(self.project.home / "outbox", ignore_errors=True)
        answer = self.project.home / "answer.json"
        code = RUN.format(folder=str(self.project.folder), models=models, answer=str(answer))
        code = f"import os\nos.sched_setaffinity(0, {{{processor}}})\n{code}"
        written, complaints = self.project.home / "stdout.txt", self.project.home / "stderr.txt"
        with written.open("w") as stdout, complaints.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-c", code], env=dict(self.environment), stdout=stdout, stderr=stderr
            )
            # What this one run and its processes used, also where another goes on beside it.
            _, status, used = os.wait4(process.pid, 0)
        ended = time.time()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0 or "Traceback" in complaints.read_text():
            self.unclean.append(complaints.read_text()[-3000:])
        if process.returncode != 0:
            raise RuntimeError(f"{written.read_text()[-3000:]}\n{complaints.read_text()[-3000:]}")
        if self.otlp and self.lineage and not self.trouble:
            # All of it has arrived, else it would be no measurement of all of it.
            assert sum(self._waiting().values()) == 0, self._waiting()
            assert len(self.lineage.events()) >= 2 * models and len(self.otlp.spans()) >= models
        if counts:
            begun, peak = json.loads(answer.read_text())
            self.times.append(ended - begun)
            self.processor.append(used.ru_utime + used.ru_stime)
            self.peaks.append(peak)
            self.waiting.append(self._waiting())

    def _waiting(self) -> dict[str, int]:
        home = FloeHome(self.project.home)
        return {signal: Outbox(home.outbox_dir("bench", signal)).pending() for signal in SIGNALS}


@dataclass
class Pair:
    """An arm, and its runs' neighbours.

    Args:
        name: What is peculiar to the receivers.
        ours: Sends to them.
        off: Sends nothing.
    """

    name: str
    ours: Arm
    off: Arm

    def run(self, models: int, processors: Sequence[int], *, counts: bool) -> None:
        """Run both at the same time, each on one of two processors."""
        with ThreadPoolExecutor(2) as pool:
            runs = [
                pool.submit(arm.run, models, counts=counts, processor=processor)
                for arm, processor in zip((self.ours, self.off), processors, strict=True)
            ]
        for run in runs:
            run.result()


def measure(root: Path, models: int = 300, rounds: int = 2, events: int = 10_000) -> list[Row]:
    """Run each arm beside a run with all of it off, after one such pair that warms up.

    A machine's speed varies within minutes by more than what is looked for, so both runs of a pair go on at the same
    time, each on a processor of its own, and change places for the next pair. What would be sent by an idle processor
    is sent by the run's own, so that the ratio is rather too high than too low.

    Raises:
        RuntimeError: Where this process may not use two processors.
    """
    processors = sorted(os.sched_getaffinity(0))[:2]
    if len(processors) < 2:
        raise RuntimeError("this benchmark needs two processors: two runs go on side by side")
    with ExitStack() as stack:
        arms: list[Pair] = []
        for number, (name, mode) in enumerate([("on", FaultMode.OK), *TROUBLES.items()]):
            receivers = stack.enter_context(_receivers(mode))
            ours = _arm(root / f"arm-{number}", models, *receivers, trouble=name != "on")
            # Each with one of its own: a run is the slower the more of them its tables and event log have seen.
            arms.append(Pair(name, ours, _arm(root / f"off-{number}", models, None, None)))
        for turn in range(-1, 2 * rounds):
            for pair in arms:
                pair.run(models, processors if turn % 2 else processors[::-1], counts=turn >= 0)
                times = [arm.times[-1:] for arm in (pair.ours, pair.off)]
                print(f"pair {turn + 1} of {2 * rounds}, {pair.name} and off: {times}", flush=True)
    rows = _rows(arms, models)
    print(table(rows), flush=True)
    return [*rows, *_events(root / "events", events)]


def _arm(
    root: Path,
    models: int,
    otlp: OtlpReceiver | None,
    lineage: LineageReceiver | None,
    *,
    trouble: bool = False,
) -> Arm:
    project = generate(root, models)
    section = ON.format(tracing=otlp.grpc_endpoint, lineage=lineage.url) if otlp and lineage else OFF
    (root / "manifest.yaml").write_text(MANIFEST + section)
    arm = Arm(project, project.with_instance(), otlp, lineage, trouble)
    seconds(floe("compile", str(project.folder)), arm.environment)
    return arm


@contextmanager
def _receivers(mode: FaultMode | None) -> Iterator[tuple[OtlpReceiver, LineageReceiver]]:
    """Give receivers of this process, which is another one than that of the runs."""
    with OtlpReceiver() as otlp, LineageReceiver() as lineage:
        for receiver in (otlp, lineage):
            if mode is None:
                receiver.stop_listening()
            else:
                receiver.mode = mode
        yield otlp, lineage


def _rows(pairs: Sequence[Pair], models: int) -> list[Row]:
    on, *others = pairs
    memory = median(on.off.peaks) / 2**20
    more = median(on.ours.peaks) / 2**20 - memory
    rows = [
        _row(f"run of {models} models and {2 * models} tests with traces, metrics and lineage", on),
        Row(
            "peak memory of it",
            f"{memory + more:.0f} MiB",
            f"{memory:.0f} MiB (all of it off)",
            None,
            f"<= 50 MB more (is {more * 2**20 / 1e6:.0f})",
            more * 2**20 <= 50e6,
        ),
    ]
    for pair in others:
        left = {signal: round(median(found[signal] for found in pair.ours.waiting)) for signal in SIGNALS}
        told = ", ".join(f"{count} {signal}" for signal, count in left.items())
        rows.append(_row(f"the same, collector and lineage backend {pair.name}; then wait: {told}", pair))
    return rows


def _row(what: str, pair: Pair) -> Row:
    ours, off = pair.ours, pair.off
    ratio = median(mine / theirs for mine, theirs in zip(ours.times, off.times, strict=True))
    clean = "" if not ours.unclean else f", {len(ours.unclean)} did not end cleanly"
    return Row(
        what,
        f"{median(ours.times):.1f} s, {median(ours.processor):.0f} s of processors{clean}",
        f"{median(off.times):.1f} s, {median(off.processor):.0f} s of processors (all of it off, beside it)",
        ratio,
        "<= 1.05",
        ratio <= 1.05 and not ours.unclean,
    )


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keep the receiver from pausing to look through all that it has kept: that is no cost of a sender."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _events(root: Path, count: int) -> list[Row]:
    root.mkdir(parents=True)
    answer = root / "answer.json"
    ours: list[list[float]] = []
    client: list[list[float]] = []
    with LineageReceiver() as receiver, _no_collections():
        for turn in range(3):
            arms = [("ours", OURS, ours), ("client", CLIENT, client)]
            for name, code, found in arms if turn % 2 else reversed(arms):
                receiver.clear()
                names = {"url": receiver.url, "home": str(root / f"{name}-{turn}"), "count": count}
                script = (EVENTS + code).format(answer=str(answer), **names)
                seconds([sys.executable, "-c", script], {"PYTHONPATH": str(ROOT)})
                assert len(receiver.events()) == count + 1
                found.append(json.loads(answer.read_text()))
    elapsed, peer = median(one[0] for one in ours), median(one[0] for one in client)
    handed, memory = median(one[1] for one in ours), median(one[2] for one in ours) / 1e6
    ratio = elapsed / peer
    return [
        Row(
            f"{count:,} lineage events of 20 columns through the outbox until they have arrived",
            f"{count / elapsed:,.0f} events/s",
            f"{count / peer:,.0f} events/s (HttpTransport of openlineage-python)",
            ratio,
            "<= 1.1",
            ratio <= 1.1,
        ),
        Row(
            "for which the run waits meanwhile",
            f"{handed / count * 1000:.2f} ms each",
            f"{peer / count * 1000:.2f} ms each (the same)",
            handed / peer,
            "<= 1",
            handed <= peer,
        ),
        Row("memory of it", f"{memory:.0f} MB more", "-", None, "<= 50 MB more", memory <= 50),
    ]
