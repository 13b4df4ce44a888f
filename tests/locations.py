"""A product as a code location serves it: its definitions, and the state that is baked beside them."""

from __future__ import annotations

import shutil
from pathlib import Path

from floe_dagster.compilation.bundle import BAKED_BUNDLE
from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.compilation.result import CompileResult
from floe_dagster.home import FloeHome

DEFINITIONS = """\
from floe_dagster import load_product_definitions

defs = load_product_definitions(__file__)
"""


def bake(product: Path, home: FloeHome) -> CompileResult:
    """Compile a product and lay its state where an image has it: loading alone never compiles.

    Args:
        product: Its folder.
        home: The writable folder.
    """
    result = compile_product(product, home=home)
    assert result.bundle_path is not None, result.findings
    (product / "target").mkdir(exist_ok=True)
    shutil.copy(result.bundle_path, product / "target" / BAKED_BUNDLE)
    return result
