"""The secrets of the services of one folder: a file of NAME=value that its owner alone can read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from floe_dagster.atomic import PRIVATE, write_atomically


def read_environment(folder: Path) -> dict[str, str]:
    """Return the secrets by their names; none where nothing was ever started in the folder."""
    try:
        lines = (folder / "environment").read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


def write_environment(folder: Path, environment: Mapping[str, str]) -> None:
    """Write the secrets in place of those that are there."""
    text = "".join(f"{name}={value}\n" for name, value in environment.items())
    write_atomically(folder / "environment", text.encode(), mode=PRIVATE)
