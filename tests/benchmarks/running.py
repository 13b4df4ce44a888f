"""A run of six models as a whole command, and of 300 models and 600 tests in Dagster, against `dbt build` alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median

from tests.benchmarks.projects import dbt, floe, generate, seconds, usage
from tests.benchmarks.report import Row

RUN = """
import json, time
from pathlib import Path
import dagster as dg
from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.execution.workspaces.duckdb import workspace
from floe_dagster.home import FloeHome

times, publish = [], workspace.publish_relation

def timed(*args, **options):
    begun = time.perf_counter()
    try:
        return publish(*args, **options)
    finally:
        times.append((begun, time.perf_counter()))

workspace.publish_relation = timed
folder, home = Path({folder!r}), FloeHome(Path({home!r}))
result = compile_product(folder, home=home)
job = build_product_definitions(result.bundle, product_dir=folder, home=home).resolve_job_def('bench_run')
with dg.DagsterInstance.get() as instance:
    begun = time.perf_counter()
    outcome = job.execute_in_process(instance=instance)
    elapsed = time.perf_counter() - begun
events = outcome.asset_materializations_for_node('bench_dbt')
assert outcome.success and len(events) == {models}
assert len(outcome.get_asset_check_evaluations()) == 2 * {models}
published, ended = 0.0, 0.0
# Several at once: the time in which at least one goes on.
for first, last in sorted(times):
    published += max(0.0, last - max(first, ended))
    ended = max(ended, last)
Path({answer!r}).write_text(json.dumps([elapsed, published]))
"""


SMALL = 6


def measure(root: Path, models: int = 300) -> list[Row]:
    """Compare the two runs with what dbt takes for the same."""
    return [_small(root), *_large(root, models)]


def _small(root: Path) -> Row:
    """Run once cold, then compare whole processes in turns; everything is published."""
    project = generate(root / "small", SMALL)
    environment = project.with_instance()
    ours, plain = [], []
    for _ in range(6):
        ours.append(usage(floe("run", str(project.folder)), environment))
        plain.append(usage(dbt(project, "build"), environment))
    best, peer = (median(elapsed for elapsed, _ in times[1:]) for times in (ours, plain))
    processors = median(used.ru_utime + used.ru_stime for _, used in ours[1:])
    return Row(
        f"floe-dagster run, {SMALL} models compiled before, all published",
        f"{best:.1f} s, {processors:.1f} s of processors",
        f"{peer:.1f} s (dbt build, partial parse)",
        best / peer,
        "<= 1.0",
        best / peer <= 1.0,
    )


def _large(root: Path, models: int) -> list[Row]:
    """Run once cold to warm dbt's caches, then compare; publication is counted apart."""
    project = generate(root / "run", models)
    environment = project.with_instance()
    seconds(floe("compile", str(project.folder)), environment)
    answer = project.home / "answer.json"
    code = RUN.format(folder=str(project.folder), home=str(project.home), models=models, answer=str(answer))
    ours, published, plain = [], [], []
    for _ in range(3):
        plain.append(seconds(dbt(project, "build"), environment))
        seconds([sys.executable, "-c", code], environment)
        elapsed, publication = json.loads(answer.read_text())
        ours.append(elapsed - publication)
        published.append(publication)
    best, peer = min(ours[1:]), min(plain[1:])
    whole = min(build + publication for build, publication in zip(ours[1:], published[1:], strict=True))
    return [
        Row(
            f"run of {models} models and {2 * models} tests, publication apart ({min(published):.1f} s), "
            "consolidated SQLite event log",
            f"{best:.1f} s",
            f"{peer:.1f} s (dbt build)",
            best / peer,
            "<= 0.75",
            best / peer <= 0.75,
        ),
        Row(
            f"the same with all {models} tables published",
            f"{whole:.1f} s",
            f"{peer:.1f} s (dbt build)",
            whole / peer,
            "<= 1.0",
            whole / peer <= 1.0,
        ),
    ]
