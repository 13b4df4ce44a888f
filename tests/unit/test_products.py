"""The shipped products' seeds are what their generator gives."""

from __future__ import annotations

import runpy
from pathlib import Path

PRODUCTS = Path(__file__).resolve().parent.parent.parent / "products"


def test_seeds_are_current() -> None:
    seeds = runpy.run_path(str(PRODUCTS / "seed_data.py"))["seeds"]()
    assert len(seeds) == 9
    for path, content in seeds.items():
        assert (PRODUCTS / path).read_text(encoding="utf-8") == content, "run python products/seed_data.py"
