"""Where dbt's YAML describes a model or a column."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from floe_dagster.policies.asset_names import model_name

_ENTRY = re.compile(r"""^(\s*)(-\s*)?\{?\s*["']?name["']?:\s*["']?([^\s"',}#]+)""")


class DescriptionPlaces:
    """Finds the line of a model's or a column's entry; each file is scanned once.

    The scan looks for `name:` at the start of list entries. It is a help for people, so what it does not
    recognise is given as the model's SQL file instead.

    Args:
        read_text: Returns the text of a file by dbt's path of it, None where it cannot be read.
    """

    def __init__(self, read_text: Callable[[str], str | None]) -> None:
        self._read_text = read_text
        self._files: dict[str, dict[tuple[str, str | None], int]] = {}

    def of(self, node: Mapping[str, Any], column: str | None = None) -> tuple[str, int] | None:
        """Return file and line (1-based) of the entry of a node or of one of its columns, None where unknown.

        Args:
            node: Of dbt's manifest.
            column: Its entry rather than the node's.
        """
        file = (node.get("patch_path") or "").partition("://")[2]
        if not file:
            return None
        if file not in self._files:
            self._files[file] = _index(self._read_text(file) or "")
        lines = self._files[file]
        name = model_name(node)
        line = lines.get((name, column)) or lines.get((name, None))
        return (file, line) if line else None


def _index(text: str) -> dict[tuple[str, str | None], int]:
    found: dict[tuple[str, str | None], int] = {}
    outer: int | None = None
    current: str | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if line[:1] not in ("", " ", "-", "#"):
            # A new section, `models:` or `seeds:`; its entries may be indented differently.
            outer, current = None, None
            continue
        match = _ENTRY.match(line)
        if match is None:
            continue
        spaces, dash, name = match.groups()
        # Where `name:` is not the first key of its entry, the dash stands two columns before it.
        indent = len(spaces) if dash is not None else len(spaces) - 2
        if outer is None:
            outer = indent
        if outer is not None and indent <= outer:
            current = name
            found.setdefault((name, None), number)
        elif current is not None:
            found.setdefault((current, name), number)
    return found
