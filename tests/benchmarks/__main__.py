"""Run as `python -m tests.benchmarks`; exit code 1 where a bar is missed."""

from __future__ import annotations

import argparse
import tempfile
from importlib import import_module
from pathlib import Path

from tests.benchmarks.report import Row, machine, table

MODULES = ("starting", "ticking", "publication", "loading", "compiling", "running")
GROWTH = "## Growth"
SERVICES = "## Real services"
TELEMETRY = "## Telemetry"
MANY = "## Many products"
TRINO = "## Trino"
HEAD = """\
# Benchmarks

`make bench` measures every row against a named peer in the same run; `make bench-growth` the growth. Numbers are
of whole processes where a command is named, else of the call. Shorter is better; a ratio is ours through the peer's.
"""


def main() -> int:
    """Measure what was asked for, print it, and write it where `--write` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=MODULES, help="one part; may be repeated")
    parser.add_argument("--growth", action="store_true", help="500, 5,000 and 20,000 models instead")
    parser.add_argument("--services", action="store_true", help="MinIO and a REST catalog instead")
    parser.add_argument("--telemetry", action="store_true", help="traces, metrics and lineage instead")
    parser.add_argument("--many", action="store_true", help="50 products in the queue instead")
    parser.add_argument("--trino", action="store_true", help="TPC-H on DuckDB and on Trino instead")
    parser.add_argument(
        "--scales", type=float, nargs="+", default=[0.1, 1.0], metavar="SCALE", help="of --trino, two or more"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=2,
        help="of --telemetry, two pairs of runs each; of --trino, one run of each",
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="keep the result as Markdown")
    options = parser.parse_args()
    if len(set(options.scales)) < 2:
        parser.error("--scales needs two different ones: a line goes through two points")
    with tempfile.TemporaryDirectory(prefix="floe-bench-") as folder:
        rows: list[Row]
        if options.growth:
            from tests.benchmarks import growth

            text, missed = f"{GROWTH}\n\n{growth.measure(Path(folder))}\n", False
        elif options.services:
            from tests.benchmarks import services

            rows = services.measure(Path(folder) / "services")
            text, missed = f"{SERVICES}\n\n{table(rows)}\n", not all(row.met for row in rows)
        elif options.telemetry:
            from tests.benchmarks import telemetry

            rows = telemetry.measure(Path(folder) / "telemetry", rounds=options.rounds)
            text, missed = f"{TELEMETRY}\n\n{table(rows)}\n", not all(row.met for row in rows)
        elif options.many:
            from tests.benchmarks import many

            rows = many.measure(Path(folder) / "many")
            text, missed = f"{MANY}\n\n{table(rows)}\n", not all(row.met for row in rows)
        elif options.trino:
            from tests.benchmarks import trino

            rows, grows = trino.measure(Path(folder) / "trino", options.scales, options.rounds)
            text, missed = f"{TRINO}\n\n{table(rows)}\n\n{grows}\n", not all(row.met for row in rows)
        else:
            rows = []
            for name in options.only or MODULES:
                rows += import_module(f"tests.benchmarks.{name}").measure(Path(folder) / name)
                print(table(rows[-1:]) if len(rows) == 1 else table(rows), "\n", flush=True)
            text, missed = f"{HEAD}\n{table(rows)}\n", not all(row.met for row in rows)
    text += f"\nMeasured on: {machine()}\n"
    print(text)
    if options.write:
        chosen = {
            GROWTH: options.growth,
            SERVICES: options.services,
            TELEMETRY: options.telemetry,
            MANY: options.many,
            TRINO: options.trino,
        }
        part = next((heading for heading, is_chosen in chosen.items() if is_chosen), "")
        options.write.write_text(_merged(options.write, text, part), encoding="utf-8")
    return 1 if missed else 0


def _merged(path: Path, text: str, part: str) -> str:
    """Return the text of the file, in which the parts that were not measured now stay as they are.

    Args:
        path: The file.
        text: What was measured now.
        part: Its heading; empty for the bars at the top.
    """
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    parts = {"": "", SERVICES: "", TELEMETRY: "", MANY: "", TRINO: "", GROWTH: ""}
    current = ""
    for line in before.splitlines(keepends=True):
        current = line.strip() if line.strip() in parts and line.strip() else current
        parts[current] += line
    parts[part] = text
    return "\n".join(kept.strip() + "\n" for kept in parts.values() if kept.strip())


if __name__ == "__main__":
    raise SystemExit(main())
