"""The two files that make a product's folder a Dagster code location."""

from __future__ import annotations

from pathlib import Path

from floe_dagster.compilation.atomic import write_atomically

DEFINITIONS = '''"""Dagster definitions of this product, from its compiled state."""

from floe_dagster import load_product_definitions

defs = load_product_definitions(__file__)
'''


def write_definitions(product_dir: Path) -> list[Path]:
    """Write `definitions.py`, and an `__init__.py` where there is none, into a product's folder.

    Returns:
        The files that hold something new.
    """
    written = []
    if write_atomically(product_dir / "definitions.py", DEFINITIONS.encode()):
        written.append(product_dir / "definitions.py")
    package = product_dir / "__init__.py"
    if not package.exists():
        write_atomically(package, b"")
        written.append(package)
    return written
