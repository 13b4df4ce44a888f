"""A floe-dagster with one module and one line more, as somebody adds a kind to it, and commands of that one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import floe_dagster


def with_kind(folder: Path, module: str, source: str, registry: str, *replacements: tuple[str, str]) -> Path:
    """Make a copy of the package with a further module, which its registry names; returns the folder to import it from.

    Args:
        folder: Is made.
        module: Path of the new module in the package.
        source: Its text.
        registry: Path of the module that lists the kinds.
        replacements: What stands there, and what takes its place.
    """
    package = folder / "floe_dagster"
    shutil.copytree(Path(floe_dagster.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / module).write_text(source)
    text = (package / registry).read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    (package / registry).write_text(text)
    return folder


def floe(
    package: Path, product: Path, *arguments: str | Path, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of it beside a product, with a FLOE_HOME of the product's own."""
    home = str(product.parent / "home")
    return subprocess.run(
        [Path(sys.executable).with_name("floe-dagster"), *arguments],
        cwd=product.parent,
        env={**os.environ, "PYTHONPATH": str(package), "FLOE_HOME": home, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
