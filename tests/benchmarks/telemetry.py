"""What traces, metrics and lineage cost a run: with receivers that take them, and with receivers in trouble."""

from __future__ import annotations

import gc
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

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
product = ProductLineage('bench', 'floe', 'bench@example.com', 'Bench.', {{}}, 'duckdb', lambda path: None, run,
                         ('DuckDB', '2.0.0'))
source = DatasetName('s3://warehouse', 'bench/source')

def event(number):
    asset = {{'id': f'model.bench.m{{number}}', 'name': f'm{{number}}', 'type': 'model', 'owners': ['bench'],
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
        otlp: Receives its traces and metrics; None where nothing is sent.
        lineage: Receives its events.
        trouble: Whether the receivers are in trouble.
    """

    project: Project
    otlp: OtlpReceiver | None
    lineage: LineageReceiver | None
    trouble: bool
    times: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    waiting: list[dict[str, int]] = field(default_factory=list)
    unclean: list[str] = field(default_factory=list)

    @property
    def environment(self) -> Mapping[str, str]:
        return {**self.project.environment, "DAGSTER_HOME": str(self.project.home / "dagster")}

    def run(self, models: int, *, counts: bool) -> None:
        """Run the product once, in a process of its own, until that process has ended."""
        for receiver in (self.otlp, self.lineage):
            if receiver is not None:
                receiver.clear()
        shutil.rmtree(self.project.home / "outbox", ignore_errors=True)
        answer = self.project.home / "answer.json"
        code = RUN.format(folder=str(self.project.folder), models=models, answer=str(answer))
        used = _processor_seconds()
        done = subprocess.run(
            [sys.executable, "-c", code], env=dict(self.environment), capture_output=True, text=True
        )
        ended = time.time()
        if done.returncode != 0 or "Traceback" in done.stderr:
            self.unclean.append(done.stderr[-3000:])
        if done.returncode != 0:
            raise RuntimeError(f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        if self.otlp and self.lineage and not self.trouble:
            # All of it has arrived, else it would be no measurement of all of it.
            assert sum(self._waiting().values()) == 0, self._waiting()
            assert len(self.lineage.events()) >= 2 * models and len(self.otlp.spans()) >= models
        if counts:
            begun, peak = json.loads(answer.read_text())
            self.times.append(ended - begun)
            self.processor.append(_processor_seconds() - used)
            self.peaks.append(peak)
            self.waiting.append(self._waiting())

    def _waiting(self) -> dict[str, int]:
        home = FloeHome(self.project.home)
        return {signal: Outbox(home.outbox_dir("bench", signal)).pending() for signal in SIGNALS}


def measure(root: Path, models: int = 300, rounds: int = 5, events: int = 10_000) -> list[Row]:
    """Run the arms in turns, each round in another order, after one round that warms up.

    With and without all of it, the product runs in two pairs a round, one next to the other and once in each order:
    the difference is smaller than what one run varies by, and than what a machine varies by within minutes.
    """
    with ExitStack() as stack:
        arms = {"off": _arm(root / "off", models, None, None)}
        for number, (name, mode) in enumerate([("on", FaultMode.OK), *TROUBLES.items()]):
            receivers = stack.enter_context(_receivers(mode))
            arms[name] = _arm(root / f"arm-{number}", models, *receivers, trouble=name != "on")
        troubles = list(TROUBLES)
        for turn in range(rounds + 1):
            others = troubles[turn % len(troubles) :] + troubles[: turn % len(troubles)]
            warming = ["off", "on", *others]
            for name in ["off", "on", *others, "on", "off"] if turn else warming:
                arms[name].run(models, counts=turn > 0)
                print(f"round {turn} of {rounds}, {name}: {arms[name].times[-1:]}", flush=True)
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
    (project.home / "dagster").mkdir(parents=True)
    shutil.copy(ROOT / "deploy" / "local" / "dagster.yaml", project.home / "dagster" / "dagster.yaml")
    arm = Arm(project, otlp, lineage, trouble)
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


def _rows(arms: Mapping[str, Arm], models: int) -> list[Row]:
    off, on = arms["off"], arms["on"]
    memory = median(off.peaks) / 2**20
    more = median(on.peaks) / 2**20 - memory
    rows = [
        _row(f"run of {models} models and {2 * models} tests with traces, metrics and lineage", on, off),
        Row(
            "peak memory of it",
            f"{memory + more:.0f} MiB",
            f"{memory:.0f} MiB (all of it off)",
            None,
            f"<= 50 MB more (is {more * 2**20 / 1e6:.0f})",
            more * 2**20 <= 50e6,
        ),
    ]
    for name in TROUBLES:
        left = {signal: round(median(found[signal] for found in arms[name].waiting)) for signal in SIGNALS}
        told = ", ".join(f"{count} {signal}" for signal, count in left.items())
        rows.append(
            _row(f"the same, collector and lineage backend {name}; then wait: {told}", arms[name], off)
        )
    return rows


def _row(what: str, arm: Arm, off: Arm) -> Row:
    # By pairs: what else this machine did at the time weighs on both.
    ratio = median(ours / theirs for ours, theirs in zip(arm.times, _beside(off, arm), strict=True))
    clean = "" if not arm.unclean else f", {len(arm.unclean)} did not end cleanly"
    return Row(
        what,
        f"{median(arm.times):.1f} s, {median(arm.processor):.0f} s of processors{clean}",
        f"{median(off.times):.1f} s, {median(off.processor):.0f} s of processors (all of it off)",
        ratio,
        "<= 1.05",
        ratio <= 1.05 and not arm.unclean,
    )


def _beside(off: Arm, arm: Arm) -> list[float]:
    """Return for each run of an arm what it compares with: the run next to it, or its round's."""
    each = len(off.times) // len(arm.times)
    return [mean(off.times[first : first + each]) for first in range(0, len(off.times), each)]


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keep the receiver from pausing to look through all that it has kept: that is no cost of a sender."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _processor_seconds() -> float:
    """Return what the processes that have ended, and theirs, have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
