"""The same at 500, 5,000 and 20,000 models: what grows faster than the input?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import compiling, loading

SIZES = (500, 5_000, 20_000)


def measure(root: Path, sizes: Sequence[int] = SIZES) -> str:
    """Return a Markdown table of seconds by number of models."""
    lines = [
        "| models | cold compile | dbt parse | recompile | dbt parse, partial | load | @dbt_assets |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for models in sizes:
        project, ours, theirs = compiling.cold(root / str(models), models)
        again, partial = compiling.unchanged(project, repeat=3)
        load, plain = loading.compare(project, models, repeat=1)
        cells = (ours, theirs, again, partial, load, plain)
        lines.append(f"| {models:,} | " + " | ".join(f"{cell:.2f} s" for cell in cells) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines)
