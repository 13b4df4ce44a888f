"""The one line in a product's `definitions.py`."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from floe_dagster.definitions.component import FloeProduct
from floe_dagster.definitions.sensors import INTERVAL_SECONDS
from floe_dagster.named_manifests import SPEC_FILE


def load_product_definitions(
    anchor: str | Path,
    *,
    manifest: str | Path | None = None,
    sensor_interval_seconds: int = INTERVAL_SECONDS,
    manifest_sha256: str | None = None,
) -> dg.Definitions:
    """Return the definitions of the product that `anchor` lies in.

    Args:
        anchor: `__file__` of the product's `definitions.py`, or the product's folder.
        manifest: Platform manifest in place of the one that `floe.yaml` names.
        sensor_interval_seconds: How often the sensor looks for changed sources, at least.
        manifest_sha256: Digests of the manifests that may count, as `floe-dagster platform digest` prints them.
    """
    path = Path(os.path.abspath(anchor))
    product_dir = path if path.is_dir() else path.parent
    component = FloeProduct(
        product_dir=str(product_dir),
        manifest=str(manifest) if manifest else None,
        sensor_interval_seconds=sensor_interval_seconds,
        manifest_sha256=manifest_sha256,
    )
    return dg.build_defs_for_component(component)


def load_all_product_definitions(anchor: str | Path) -> dg.Definitions:
    """Return the definitions of every product beside `anchor` as one location.

    Code locations are one per product; this is for tools that look at a whole project at once, such as
    `dg check defs`.

    Args:
        anchor: A file in the folder that holds the products' folders.
    """
    folder = Path(os.path.abspath(anchor)).parent
    specs = sorted(folder.glob(f"*/{SPEC_FILE}"))
    return dg.Definitions.merge(*(load_product_definitions(spec.parent) for spec in specs))
