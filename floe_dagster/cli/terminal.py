"""What the commands share: which products are meant, how findings and tables look."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from floe_dagster.findings import Finding

_COLOURS = {"error": "31;1", "warning": "33;1", "info": "36", "ok": "32;1", "dim": "2", "bold": "1"}


def colour(text: str, name: str, stream: IO[str] | None = None) -> str:
    """Return `text` in a colour where `stream` is a terminal that wants colours."""
    stream = stream or sys.stdout
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m"


def product_dirs(named: Sequence[Path]) -> list[Path]:
    """Return the products meant: those named, else the current folder, else all below `products/`.

    Raises:
        SystemExit: There is none; exit code 2.
    """
    if named:
        return list(named)
    here = Path.cwd()
    if (here / "floe.yaml").exists():
        return [here]
    for folder in (here / "products", here):
        found = sorted(spec.parent for spec in folder.glob("*/floe.yaml"))
        if found:
            return found
    print(
        "error: no product found: neither ./floe.yaml nor products/*/floe.yaml exists; name a product's folder",
        file=sys.stderr,
    )
    raise SystemExit(2)


def print_findings(findings: Iterable[Finding], stream: IO[str] | None = None) -> None:
    """Print findings as text, the severity in its colour."""
    stream = stream or sys.stderr
    for finding in findings:
        text = finding.to_text()
        marked = colour(f"{finding.severity}:", finding.severity, stream)
        print(text.replace(f"{finding.severity}:", marked, 1), file=stream)


def print_json(value: Any) -> None:
    """Print JSON for machines on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Iterable[int] = ()) -> str:
    """Return a table of text with aligned columns.

    Args:
        headers: Of the columns.
        rows: Cells are shown as `str`, None as `-`.
        right: Positions of columns that are aligned to the right.
    """
    texts = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [
        max([len(header), *(len(row[position]) for row in texts)]) for position, header in enumerate(headers)
    ]
    to_the_right = set(right)

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.rjust(width) if position in to_the_right else cell.ljust(width)
            for position, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(aligned).rstrip()

    return "\n".join([line(list(headers)), line(["-" * width for width in widths]), *map(line, texts)])


def counted(number: int, noun: str) -> str:
    """Return `1 warning`, `2 warnings`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
