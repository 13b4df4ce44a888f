"""Which table properties a product may set: an allow-list.

Some properties say where data and metadata lie, which code writes them, or whether an engine may delete them. Those are the
platform's, and so is every property that nobody here knows. A platform may allow further ones (`governance.table_properties`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from floe_dagster.compilation.asset_index import asset_nodes, is_published
from floe_dagster.compilation.validation import Parsed
from floe_dagster.findings import Finding
from floe_dagster.policies.asset_names import asset_name
from floe_dagster.policies.places import DescriptionPlaces
from floe_dagster.schemas.product import ProductSpec

ALLOWED = (
    "comment",
    "owner",
    "read.parquet.vectorization.*",
    "read.split.*",
    "write.*distribution-mode",
    "write.*target-file-size-bytes",
    "write.delete.granularity",
    "write.metadata.compression-codec",
    "write.metadata.metrics.*",
    "write.parquet.*",
    "write.summary.partition-limit",
)
"""Iceberg's table properties that decide nothing but how large, how small and how well described files are."""
OURS = "floe.*"
"""What publication notes on a table; nobody else sets it."""
ALLOWED_OF_TRINO = frozenset(
    {
        "compression_codec",
        "format",
        "format_version",
        "max_commit_retry",
        "parquet_bloom_filter_columns",
        "partitioning",
        "sorted_by",
    }
)
"""What a model's config may hand to Trino under `properties`."""
PROPERTY_MAPS = ("properties", "table_properties", "tblproperties", "extra_properties")
"""Settings of a dbt model that adapters write into a table's properties."""
PLACES = ("location", "location_root", "external_location", "base_location_root", "base_location_subpath")
"""Settings of a dbt model that adapters take for where the table lies."""
_LITERAL = re.compile(r"\s*(?:'[^']*'|-?\d+(?:\.\d+)?|true|false|array\s*\[[^][;=]*\])\s*", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z0-9_]*")


def is_allowed(name: str, further: Sequence[Sequence[str]]) -> bool:
    """Tell whether a product may set an Iceberg table property.

    Args:
        name: Of the property.
        further: By layer that has a list: names and patterns that the platform allows besides `ALLOWED`.
    """
    if fnmatchcase(name, OURS):
        return False
    if not name.endswith(("impl", "path")) and any(fnmatchcase(name, pattern) for pattern in ALLOWED):
        return True
    return bool(further) and all(any(fnmatchcase(name, each) for each in listed) for listed in further)


def check_spec_properties(spec: Parsed[ProductSpec], further: Sequence[Sequence[str]]) -> Iterator[Finding]:
    """Yield a finding for each property in `floe.yaml` that is the platform's.

    Args:
        spec: The product spec.
        further: See `is_allowed`.
    """
    for position, transform in enumerate((spec.value.transforms if spec.value else None) or ()):
        properties = (transform.table.properties if transform.table else None) or {}
        for name in properties:
            if is_allowed(name, further):
                continue
            path = ("transforms", position, "table", "properties", name)
            line, column = spec.document.position(path, key=True)
            yield _finding(
                name,
                further,
                file=spec.document.display,
                line=line,
                column=column,
                field=f"transforms[{position}].table.properties.{name}",
                model=transform.name,
            )


def check_model_properties(
    dbt_manifest: Mapping[str, Any],
    path_prefix: str,
    read_text: Callable[[str], str | None],
    further: Sequence[Sequence[str]],
) -> Iterator[Finding]:
    """Yield a finding for each property in a dbt model's config that is the platform's.

    Args:
        dbt_manifest: dbt's, each node as its engine's adapter parsed it.
        path_prefix: Folder of the product, for display.
        read_text: Returns the text of a file by its path below the product's folder, None where it cannot be read.
        further: See `is_allowed`.
    """
    places = DescriptionPlaces(read_text)
    for node in asset_nodes(dbt_manifest).values():
        for field, found in _of_config(node["config"], is_published(node), further):
            file, line = _place(node, field.rpartition(".")[2], places)
            yield _finding(
                found,
                further,
                file=f"{path_prefix}/{file}" if path_prefix else file,
                line=line,
                field=f"config.{field}",
                model=asset_name(node),
            )


def _of_config(
    config: Mapping[str, Any], published: bool, further: Sequence[Sequence[str]]
) -> Iterator[tuple[str, str]]:
    """Yield which setting is the platform's, and what it sets."""
    for key in PROPERTY_MAPS:
        properties = config.get(key)
        if not properties:
            continue
        if not isinstance(properties, Mapping):
            yield key, str(properties)[:200]
            continue
        for name, value in properties.items():
            if str(name) in ALLOWED_OF_TRINO:
                # It stands in the statement as it is written here, and could say more than one thing.
                if not _LITERAL.fullmatch(str(value)):
                    yield f"{key}.{name}", f"{name} = {str(value)[:200]}"
            elif not is_allowed(str(name), further):
                yield f"{key}.{name}", str(name)[:200]
    for key in ("file_format", "table_format"):
        if config.get(key) and not _WORD.fullmatch(str(config[key])):
            yield key, f"{key} = {str(config[key])[:200]}"
    for key in PLACES if published else ():
        if config.get(key):
            yield key, key


def _place(node: Mapping[str, Any], name: str, places: DescriptionPlaces) -> tuple[str, int]:
    sql = node.get("raw_code") or ""
    at = sql.find(name)
    if at >= 0:
        return node["original_file_path"], sql.count("\n", 0, at) + 1
    return places.of(node) or (node["original_file_path"], 1)


def _finding(name: str, further: Sequence[Sequence[str]], **fields: Any) -> Finding:
    listed = [*ALLOWED, *dict.fromkeys(pattern for each in further for pattern in each)]
    return Finding(
        code="platform-property",
        severity="error",
        message=f"{name!r} of a table is not the product's to set: it may move data or metadata, run other code or keep files "
        "from the platform's care",
        found=name,
        allowed=", ".join(listed),
        fix="Take it out."
        if fnmatchcase(name, OURS)
        else "Take it out, or have the platform team add it to governance.table_properties of its manifest.",
        **fields,
    )
