"""Rows of the benchmark table and how they are printed."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "dagster",
    "dagster-dbt",
    "dbt-core",
    "dbt-duckdb",
    "dbt-trino",
    "duckdb",
    "pyiceberg",
    "pydantic",
    "pyarrow",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Args:
        what: What is measured.
        measured: Ours, with its unit.
        peer: The peer's, in the same run, with its unit and its name.
        ratio: Ours through the peer's; None for an absolute bar.
        bar: What is asked for.
        met: Whether it is reached.
    """

    what: str
    measured: str
    peer: str
    ratio: float | None
    bar: str
    met: bool


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| what | ours | peer | ratio | bar | met |", "|---|---:|---:|---:|---|---|"]
    for row in rows:
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else "-"
        met = "yes" if row.met else "**no**"
        lines.append(f"| {row.what} | {row.measured} | {row.peer} | {ratio} | {row.bar} | {met} |")
    return "\n".join(lines)


def machine() -> str:
    """Return cores, memory and versions of this machine as Markdown."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return (
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}; {versions}."
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )
