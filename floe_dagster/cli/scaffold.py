"""The two files that make a product's folder a Dagster code location."""

from __future__ import annotations

from pathlib import Path

from floe_dagster.atomic import write_atomically

DEFINITIONS = '''"""Dagster definitions of this product, from its compiled state."""

from floe_dagster import load_product_definitions

defs = load_product_definitions(__file__)
'''


def write_definitions(product_dir: Path) -> tuple[list[Path], list[Path]]:
    """Write `definitions.py` and `__init__.py` into a product's folder, where they are not there yet.

    A `definitions.py` that somebody has written stays as it is.

    Returns:
        The files that were written, and those that hold something else and were left alone.
    """
    written, kept = [], []
    module = product_dir / "definitions.py"
    if not module.exists():
        write_atomically(module, DEFINITIONS.encode())
        written.append(module)
    elif module.read_bytes() != DEFINITIONS.encode():
        kept.append(module)
    package = product_dir / "__init__.py"
    if not package.exists():
        write_atomically(package, b"")
        written.append(package)
    return written, kept
