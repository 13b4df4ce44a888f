"""dbt's deferral: what a run does not build is read as it is published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from floe_dagster.compilation.atomic import write_atomically


def write_state(
    manifest: dict[str, Any], assets: Iterable[Mapping[str, Any]], schema: str, folder: Path
) -> Path:
    """Write the manifest that dbt defers to, and return its folder for `--state`.

    Args:
        manifest: dbt's, of the same sources; it is changed.
        assets: Of the asset index.
        schema: Where published tables stand.
        folder: Takes `manifest.json`.
    """
    for asset in assets:
        node = manifest["nodes"].get(asset["id"])
        if node is None or not asset["published"]:
            continue
        database = asset["relation"][0]
        node |= {
            "schema": schema,
            "alias": asset["name"],
            "relation_name": ".".join(f'"{part}"' for part in (database, schema, asset["name"])),
        }
    write_atomically(folder / "manifest.json", orjson.dumps(manifest))
    return folder
