"""What was measured on DuckDB and Trino as rows with bars, and where the line runs beyond which one should switch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.lines import Line, growth_lines, nodes_to_overtake, overtakes
from tests.benchmarks.report import Row
from tests.benchmarks.tpch import MODELS, PUBLISHED

DUCKDB, ONE, TWO = "DuckDB", "Trino, one node", "Trino, two nodes"
BAR = 1.2
TOLERANCE = 1e-9
"""Of sums of floating point numbers."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What an arm took at a scale.

    Args:
        engine: DuckDB, or Trino and its number of nodes.
        scale: Of TPC-H.
        ours: `floe-dagster run`; else `dbt build`.
        seconds: The median.
        peak: The most memory, in bytes, of one of its processes.
    """

    engine: str
    scale: float
    ours: bool
    seconds: float
    peak: int


def rows(taken: Sequence[Taken], different: Mapping[float, Sequence[str]]) -> list[Row]:
    """Return ours against the peer, with a bar where it is Trino at the largest scale, and whether the rows are the same."""
    largest = max(one.scale for one in taken)
    found = []
    for mine in (one for one in taken if one.ours):
        peer = next(
            one for one in taken if not one.ours and (one.engine, one.scale) == (mine.engine, mine.scale)
        )
        ratio = mine.seconds / peer.seconds
        counts = mine.engine != DUCKDB and mine.scale == largest
        theirs = "dbt build, which publishes nothing" if mine.engine == DUCKDB else "dbt build"
        found.append(
            Row(
                f"{mine.engine}, scale {mine.scale:g}: {len(MODELS)} models",
                f"{mine.seconds:.1f} s",
                f"{peer.seconds:.1f} s ({theirs})",
                ratio,
                f"<= {BAR}" if counts else "-",
                ratio <= BAR or not counts,
            )
        )
    for scale, said in different.items():
        equal = len(PUBLISHED) - len(names(said))
        found.append(
            Row(
                f"published from Trino, scale {scale:g}: tables with the same rows",
                str(equal),
                f"{len(PUBLISHED)} ({DUCKDB}'s)",
                None,
                "all",
                not said,
            )
        )
    return found


def names(different: Sequence[str]) -> set[str]:
    """Return the tables of which something was said."""
    return {said.partition(":")[0] for said in different}


def growth(taken: Sequence[Taken], scans: Mapping[float, tuple[float, float]], rounds: int) -> str:
    """Return how all of it grows, and on paper where one should switch, as Markdown.

    Args:
        taken: At two scales at least.
        scans: By scale the seconds of one scan of `lineitem`, from the connector and from the copy.
        rounds: Of which the seconds are the median.
    """
    scales = sorted(scans)
    largest = scales[-1]
    seconds: dict[str, dict[float, float]] = {}
    for one in taken:
        name = one.engine if one.ours else f"{one.engine}, dbt build"
        seconds.setdefault(name, {})[one.scale] = one.seconds
    lines = growth_lines(seconds)
    headings = [
        "seconds",
        *(f"scale {scale:g}" for scale in scales),
        "growth",
        "whatever the scale",
        "and per unit of scale",
    ]
    text = [f"| {' | '.join(headings)} |", f"|---|{'---:|' * (len(headings) - 1)}"]
    for name, points in seconds.items():
        cells = [f"{points[scale]:.1f}" for scale in scales]
        growing = f"{points[largest] / points[scales[0]]:.1f} x"
        cells += [growing, f"{lines[name].fixed:.1f}", f"{lines[name].per_scale:.1f}"]
        text.append(f"| {name} | {' | '.join(cells)} |")
    peaks = ", ".join(
        f"{one.peak / 2**30:.1f} GiB at scale {one.scale:g}"
        for one in taken
        if one.ours and one.engine == DUCKDB
    )
    made, read = scans[largest]
    return "\n\n".join(
        [
            "\n".join(text),
            f"Seconds are those of whole processes, the median of {rounds} after the runs that made the tables; each writes all "
            "tables anew and merges 90 days of orders into one. Rows are those of Trino's connector `tpch`, written once as "
            "Parquet: Trino reads them from MinIO, DuckDB the same files from the disk. The connector itself would make them "
            f"anew for each scan (`lineitem` at scale {largest:g}: {made:.1f} s, the copy {read:.1f} s). The nodes share the "
            "cores of this machine, so two of them show what the second one costs, not what it gives.",
            f"Peak memory of a run on DuckDB: {peaks}.",
            switch(lines),
        ]
    )


def switch(lines: Mapping[str, Line]) -> str:
    """Return where Trino overtakes DuckDB: measured on this machine, and on paper with nodes that have cores of their own."""
    duckdb, one, two = (lines[name] for name in (DUCKDB, ONE, TWO))
    needed = nodes_to_overtake(one, duckdb)
    if needed is None or one.per_scale <= 0 or two.per_scale <= 0:
        return (
            "These scales are too small to tell what each unit of scale costs, so there is no line to draw."
        )
    crossing = overtakes(two, duckdb)
    if crossing is None:
        met = (
            "Trino on two nodes does not overtake DuckDB on the cores of this machine: each unit of scale costs it "
            f"{two.per_scale:.1f} s more, and DuckDB {duckdb.per_scale:.1f} s."
        )
    else:
        met = f"Trino on two nodes overtakes DuckDB at scale {crossing:.3g}."
    text = [
        f"{met} On paper, with nodes that each have as many cores as this machine and divide the work evenly, Trino takes "
        f"{one.fixed:.1f} s + {one.per_scale:.1f} s x scale / nodes, DuckDB {duckdb.fixed:.1f} s + "
        f"{duckdb.per_scale:.1f} s x scale. Below {needed} nodes DuckDB grows more slowly; then:",
        "| nodes | Trino is faster from scale | where a run takes |\n|---:|---:|---:|",
    ]
    for nodes in (needed, 2 * needed, 4 * needed):
        at = overtakes(one.on_nodes(nodes), duckdb)
        assert at is not None
        text[-1] += f"\n| {nodes} | {at:.3g} | {duckdb.at(at):.0f} s |"
    text.append(
        "So time alone is a reason to switch only where a run on the largest machine at hand takes longer than it may, and that "
        "many nodes are there. Else the reason is that DuckDB's memory and disk no longer hold what the largest model needs."
    )
    return "\n\n".join(text)


def same(seen: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two tables have the same columns and values, sums of floating point within a tolerance."""
    return list(seen) == list(other) and all(
        math.isclose(value, other[name], rel_tol=TOLERANCE)
        if isinstance(value, float) and isinstance(other[name], float)
        else value == other[name]
        for name, value in seen.items()
    )
