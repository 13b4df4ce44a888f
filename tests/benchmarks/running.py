"""A run of 300 models and 600 tests in Dagster, against `dbt build` alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.benchmarks.projects import dbt, floe, generate, seconds
from tests.benchmarks.report import Row

RUN = """
import json, time
from pathlib import Path
import dagster as dg
from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.home import FloeHome

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
published = sum(event.metadata['publication/seconds'].value for event in events)
Path({answer!r}).write_text(json.dumps([elapsed, published]))
"""


def measure(root: Path, models: int = 300) -> list[Row]:
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
    return [
        Row(
            f"run of {models} models and {2 * models} tests, publication apart ({min(published):.1f} s), "
            "consolidated SQLite event log",
            f"{best:.1f} s",
            f"{peer:.1f} s (dbt build)",
            best / peer,
            "<= 1.5",
            best / peer <= 1.5,
        )
    ]
