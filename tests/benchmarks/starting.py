"""The command line's first answer."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from tests.benchmarks.projects import floe, generate, seconds
from tests.benchmarks.report import Row


def measure(root: Path) -> list[Row]:
    """Time `--help` and `validate --documents`, whole processes."""
    project = generate(root / "start", 6)
    rows = []
    for what, command, bar in (
        ("floe-dagster --help", floe("--help"), 0.5),
        ("validate --documents, small product", floe("validate", "--documents", str(project.folder)), 1.0),
    ):
        elapsed = median(seconds(command, project.environment) for _ in range(7))
        rows.append(Row(what, f"{elapsed:.2f} s", "-", None, f"<= {bar:g} s", elapsed <= bar))
    return rows
