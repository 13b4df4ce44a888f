"""Tables of a document's fields for people, from its JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from floe_dagster.schemas.json_schema import json_schemas

Schema = Mapping[str, Any]


def field_table(document: str) -> str:
    """Return a Markdown table of every field of a document: path, type, default, meaning.

    Args:
        document: `manifest`, `product` or `compiled_artifacts`.
    """
    schema = json_schemas()[document]
    lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for path, required, field in _fields(schema, schema.get("$defs", {}), ""):
        default = "**required**" if required else _default(field)
        cells = (f"`{path}`", _type(field, schema["$defs"]), default, _meaning(field, schema["$defs"]))
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def _fields(schema: Schema, definitions: Schema, path: str) -> Iterator[tuple[str, bool, Schema]]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        inner = f"{path}.{name}" if path else name
        yield inner, name in required, field
        for suffix, part in _parts(field, definitions):
            yield from _fields(part, definitions, inner + suffix)


def _parts(field: Schema, definitions: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield the objects inside a field, with what stands between its path and theirs."""
    if "$ref" in field:
        target = definitions[field["$ref"].rpartition("/")[2]]
        if "properties" in target:
            yield "", target
        return
    for alternative in field.get("anyOf", ()):
        yield from _parts(alternative, definitions)
    if "oneOf" in field:
        for value, reference in sorted(field["discriminator"]["mapping"].items()):
            for suffix, part in _parts({"$ref": reference}, definitions):
                tag = field["discriminator"]["propertyName"]
                inner = {name: each for name, each in part["properties"].items() if name != tag}
                yield f"{suffix} ({value})", {**part, "properties": inner}
    if field.get("type") == "array":
        for suffix, part in _parts(field["items"], definitions):
            yield "[]" + suffix, part
    if isinstance(field.get("additionalProperties"), dict):
        for suffix, part in _parts(field["additionalProperties"], definitions):
            yield ".<name>" + suffix, part


def _type(field: Schema, definitions: Schema) -> str:
    if "$ref" in field:
        return _type(definitions[field["$ref"].rpartition("/")[2]], definitions)
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "oneOf" in field:
        values = sorted(field["discriminator"]["mapping"])
        return f"`{field['discriminator']['propertyName']}`: " + ", ".join(f"`{value}`" for value in values)
    if "anyOf" in field:
        kinds = [_type(each, definitions) for each in field["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {_type(field['items'], definitions)}"
    if kind == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"map of {_type(field['additionalProperties'], definitions)}"
    if "minimum" in field or "maximum" in field:
        return f"{kind}, {field.get('minimum', '')}…{field.get('maximum', '')}"
    return kind


def _default(field: Schema) -> str:
    default = field.get("default")
    return "-" if default is None or isinstance(default, dict) else f"`{json.dumps(default)}`"


def _meaning(field: Schema, definitions: Schema) -> str:
    if "description" in field:
        return str(field["description"])
    if "$ref" in field:
        return str(definitions[field["$ref"].rpartition("/")[2]].get("description", ""))
    return ""
