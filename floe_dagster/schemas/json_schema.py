"""JSON Schemas of the three documents, for editors and for other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema (draft 2020-12) of each document by its name."""
    from floe_dagster.schemas.artifacts import CompiledArtifacts
    from floe_dagster.schemas.manifest import PlatformManifest
    from floe_dagster.schemas.product import ProductSpec

    models: dict[str, type[BaseModel]] = {
        "manifest": PlatformManifest,
        "product": ProductSpec,
        "compiled_artifacts": CompiledArtifacts,
    }
    schemas = {}
    for name, model in models.items():
        schema = model.model_json_schema(by_alias=True)
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        schemas[name] = schema
    return schemas


def write_json_schemas(folder: Path) -> list[Path]:
    """Write `<document>.schema.json` files into `folder` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, schema in json_schemas().items():
        path = folder / f"{name}.schema.json"
        path.write_text(json.dumps(schema, indent=2) + "\n")
        written.append(path)
    return written
