"""The sensors of 500 products of which none has changed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import median

from tests.benchmarks.projects import generate
from tests.benchmarks.report import Row

PRODUCTS = 500


def measure(root: Path) -> list[Row]:
    """Evaluate every sensor once more after nothing changed; six models each."""
    import dagster as dg

    from floe_dagster.compilation.sources import source_state
    from floe_dagster.definitions.sensors import build_sources_sensor
    from floe_dagster.home import FloeHome

    sensors = []
    home = FloeHome(root / "tick-home")
    for number in range(PRODUCTS):
        project = generate(root / "tick" / f"{number:03}", 6, name=f"bench-{number:03}")
        digest = source_state(project.folder, home=home).digest
        cursor = json.dumps({"seq": 1, "digest": digest})
        sensors.append(
            (build_sources_sensor(f"bench_{number:03}", project.folder, None, home, digest), cursor)
        )
    time.sleep(2.5)  # files this young are read again: their mtime proves nothing yet
    with dg.DagsterInstance.ephemeral() as instance:

        def tick() -> float:
            begun = time.perf_counter()
            for sensor, cursor in sensors:
                result = sensor(dg.SensorEvaluationContext(
                    instance_ref=None, last_tick_completion_time=None, last_run_key=None, cursor=cursor,
                    log_key=None, repository_name=None, instance=instance,
                ))  # fmt: skip
                assert result.skip_reason is not None and not result.run_requests
            return time.perf_counter() - begun

        tick()
        elapsed = median(tick() for _ in range(5))
    return [
        Row(
            "sensor tick, 500 products unchanged",
            f"{elapsed * 1000:.0f} ms",
            "-",
            None,
            "<= 200 ms",
            elapsed <= 0.2,
        )
    ]
