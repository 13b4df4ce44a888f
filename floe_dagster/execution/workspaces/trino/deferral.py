"""dbt's deferral: what a run does not build is read as it is published, whichever engine built it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from floe_dagster.atomic import write_atomically
from floe_dagster.schemas.product_index import Asset


def write_state(manifest: dict[str, Any], assets: Iterable[Asset], schema: str, folder: Path) -> Path:
    """Write the manifest that dbt defers to, and return its folder for `--defer-state`.

    Args:
        manifest: dbt's, of the same sources; it is changed.
        assets: Of the index, as the engine that reads them knows them.
        schema: Where published tables stand.
        folder: Takes `manifest.json`.
    """
    for asset in assets:
        node = manifest["nodes"].get(asset.id)
        if node is None:
            continue
        database, own_schema, own_name = asset.relation
        relation = (database, schema, asset.name) if asset.published else (database, own_schema, own_name)
        # The manifest's own name is that of the engine which builds it.
        node |= dict(zip(("database", "schema", "alias"), relation, strict=True))
        node["relation_name"] = ".".join(f'"{part}"' for part in relation)
    write_atomically(folder / "manifest.json", orjson.dumps(manifest))
    return folder
