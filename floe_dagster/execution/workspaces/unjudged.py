"""What was built and has not passed its tests."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from floe_dagster.atomic import write_atomically


class Unjudged:
    """Which assets were built and have not passed their tests: a run that reads them builds them again.

    They are noted before dbt begins, so that a process that is killed leaves none behind that nobody has looked at.

    Args:
        file: That keeps their unique ids.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def keys(self) -> set[str]:
        """Return their unique ids."""
        try:
            loaded = json.loads(self._file.read_bytes())
            return set(loaded) if isinstance(loaded, list) else set()
        except (OSError, ValueError):
            return set()

    def add(self, keys: Iterable[str]) -> None:
        """Note that dbt is about to build assets."""
        self._write(self.keys() | set(keys))

    def discard(self, keys: Iterable[str]) -> None:
        """Note that assets passed."""
        self._write(self.keys() - set(keys))

    def _write(self, keys: set[str]) -> None:
        write_atomically(self._file, json.dumps(sorted(keys)).encode())
