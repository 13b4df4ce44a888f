"""Run as `python -m tests.benchmarks`; exit code 1 where a bar is missed."""

from __future__ import annotations

import argparse
import tempfile
from importlib import import_module
from pathlib import Path

from tests.benchmarks.report import Row, machine, table

MODULES = ("starting", "ticking", "publication", "loading", "compiling", "running")
GROWTH = "## Growth"
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
    parser.add_argument("--write", type=Path, metavar="FILE", help="keep the result as Markdown")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="floe-bench-") as folder:
        if options.growth:
            from tests.benchmarks import growth

            text, missed = f"{GROWTH}\n\n{growth.measure(Path(folder))}\n", False
        else:
            rows: list[Row] = []
            for name in options.only or MODULES:
                rows += import_module(f"tests.benchmarks.{name}").measure(Path(folder) / name)
                print(table(rows[-1:]) if len(rows) == 1 else table(rows), "\n", flush=True)
            text, missed = f"{HEAD}\n{table(rows)}\n", not all(row.met for row in rows)
    text += f"\nMeasured on: {machine()}\n"
    print(text)
    if options.write:
        options.write.write_text(_merged(options.write, text, growth=options.growth), encoding="utf-8")
    return 1 if missed else 0


def _merged(path: Path, text: str, *, growth: bool) -> str:
    """Return the text of the file, in which the part that was not measured now stays as it is."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    kept_bars, _mark, kept_growth = before.partition(f"{GROWTH}\n")
    if growth:
        return f"{kept_bars.rstrip()}\n\n{text}".lstrip()
    return f"{text}\n{GROWTH}\n{kept_growth}" if kept_growth else text


if __name__ == "__main__":
    raise SystemExit(main())
