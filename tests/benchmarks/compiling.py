"""Compilation, cold and unchanged, against `dbt parse` alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import median

from tests.benchmarks.projects import Project, dbt, floe, generate, seconds
from tests.benchmarks.report import Row


def cold(root: Path, models: int, repeat: int = 1) -> tuple[Project, float, float]:
    """Return the project and the seconds of our cold compile and of a cold `dbt parse`."""
    project = generate(root, models)
    ours, theirs = [], []
    for _ in range(repeat):
        shutil.rmtree(project.home, ignore_errors=True)
        shutil.rmtree(project.folder / "target", ignore_errors=True)
        shutil.rmtree(project.profiles / "dbt-target", ignore_errors=True)
        theirs.append(seconds(dbt(project, "parse"), project.environment))
        ours.append(seconds(floe("compile", str(project.folder)), project.environment))
    return project, min(ours), min(theirs)


def unchanged(project: Project, repeat: int = 5) -> tuple[float, float]:
    """Return the median seconds of compiling again and of `dbt parse` with partial parsing."""
    ours = [seconds(floe("compile", str(project.folder)), project.environment) for _ in range(repeat)]
    theirs = [seconds(dbt(project, "parse"), project.environment) for _ in range(min(repeat, 3))]
    return median(ours), median(theirs)


def measure(root: Path) -> list[Row]:
    """Compile a product of 5,000 models and one of six."""
    project, ours, theirs = cold(root / "large", 5_000)
    again, parse = unchanged(project)
    _small, small_ours, small_theirs = cold(root / "small", 6, repeat=3)
    more = small_ours - small_theirs
    return [
        Row(
            "recompile with nothing changed, 5,000 models",
            f"{again:.2f} s",
            f"{parse:.1f} s (dbt parse, partial)",
            again / parse,
            "<= 1/20",
            again / parse <= 1 / 20,
        ),
        Row(
            "cold compile, 5,000 models",
            f"{ours:.1f} s",
            f"{theirs:.1f} s (dbt parse)",
            ours / theirs,
            "<= 1.15",
            ours / theirs <= 1.15,
        ),
        Row(
            "cold compile, six models",
            f"{small_ours:.2f} s",
            f"{small_theirs:.2f} s (dbt parse)",
            None,
            f"<= 1 s more (is {more:.2f} s)",
            more <= 1,
        ),
    ]
