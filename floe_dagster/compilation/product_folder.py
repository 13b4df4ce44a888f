"""Whether a folder is a product."""

from __future__ import annotations

import os
from pathlib import Path

from floe_dagster.compilation.suggestions import did_you_mean
from floe_dagster.findings import Finding
from floe_dagster.home import display_path, find_project_root
from floe_dagster.named_manifests import SPEC_FILE


def missing_product(product_dir: Path) -> Finding | None:
    """Return a finding where a folder is no product: it is not there, or has no `floe.yaml`.

    Args:
        product_dir: As somebody named it.
    """
    if os.path.lexists(product_dir / SPEC_FILE):
        return None
    product_dir = Path(os.path.abspath(product_dir))
    shown = display_path(product_dir, find_project_root(product_dir))
    if shown == ".":
        shown = str(product_dir)
    near = did_you_mean(
        product_dir.name, sorted(spec.parent.name for spec in product_dir.parent.glob(f"*/{SPEC_FILE}"))
    )
    if not product_dir.is_dir():
        message = f"there is no folder {shown}"
        fix = near or f"Name the folder of a product: the one that holds {SPEC_FILE}."
    else:
        message = f"{shown} has no {SPEC_FILE}, so it is no product"
        fix = f"Name a product's folder, or write {shown}/{SPEC_FILE} (`floe-dagster schema product`)."
    return Finding(code="no-product", severity="error", message=message, file=shown, fix=fix)
