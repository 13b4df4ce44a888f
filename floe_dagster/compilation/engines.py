"""Can the platform's engines run products here, and reach what the other plugins name?"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from floe_dagster.findings import Finding
from floe_dagster.policies.asset_names import asset_name
from floe_dagster.schemas.catalog_types import shared_catalog_types
from floe_dagster.schemas.compute import DEFAULT_ENGINE, ENGINES, supported_engines
from floe_dagster.schemas.compute.engine import audit_schema, is_audit_schema
from floe_dagster.schemas.manifest import PlatformManifest
from floe_dagster.schemas.storage_types import shared_storage_types

METADATA_TABLES = frozenset(
    {
        "entries",
        "files",
        "data_files",
        "delete_files",
        "history",
        "metadata_log_entries",
        "snapshots",
        "refs",
        "manifests",
        "partitions",
        "all_data_files",
        "all_delete_files",
        "all_files",
        "all_manifests",
        "all_entries",
        "position_deletes",
    }
)
"""`schema.table.files` reads as well as `schema.files`; a REST catalog that finds no table `files` tries the former."""

_DROPS = re.compile(r"\b(drop\s+(table|schema)|alter\s+(table|schema)\b.*\brename\s+to)\b", re.IGNORECASE)

Place = tuple[str, int]


def check_engine(
    manifest: PlatformManifest,
    types: Mapping[str, str],
    places: Mapping[str, Place],
    file: str,
    named: Collection[str] = (),
) -> list[Finding]:
    """Return what keeps the platform's engine, and the further ones that a product names, from running it.

    Args:
        manifest: Merged.
        types: The plugin type in use by category.
        places: File and line of each plugin's type, by category, where a manifest names it; further engines as
            `additional_compute[0]` and so on.
        file: The nearest manifest, for what no manifest names.
        named: Engines that transforms of the product name.
    """
    has_settings = manifest.plugins.compute is not None
    findings = _check_engine("compute", types["compute"], has_settings, types, places, file)
    for position, plugin in enumerate(manifest.plugins.additional_compute or ()):
        if plugin.type in named and plugin.type != types["compute"]:
            category = f"additional_compute[{position}]"
            findings += _check_engine(category, plugin.type, True, types, places, file)
    return findings


def _check_engine(
    category: str,
    name: str,
    has_settings: bool,
    types: Mapping[str, str],
    places: Mapping[str, Place],
    file: str,
) -> list[Finding]:
    engine = ENGINES.get(name)
    place = places.get(category, (file, 1))
    if engine is None:
        return [
            _at(
                place,
                category,
                code="unsupported-compute",
                message=f"this version runs no product on {name!r}",
                found=name,
                allowed=", ".join(ENGINES),
                fix="Name an engine that is supported.",
            )
        ]
    if not engine.is_installed:
        package = f"floe-dagster[{engine.extra}]" if engine.extra else engine.adapter
        return [
            _at(
                place,
                category,
                code="missing-adapter",
                message=f"this environment has no {engine.adapter}, which products on {name!r} need",
                found=name,
                allowed=", ".join(supported_engines()),
                fix=f"Install {package}.",
            )
        ]
    if not has_settings and engine.plugin.model_fields["config"].is_required():
        return [
            _at(
                place,
                category,
                code="missing-field",
                message=f"the default engine {name!r} has no settings",
                fix=f"Write plugins.compute with type: {name} and its config.",
            )
        ]
    return _check_shared(name, category, types, {category: place, **places}) if engine.writes_catalog else []


def check_built(
    engine: str, slug: str, nodes: Iterable[Mapping[str, Any]], path_prefix: str
) -> list[Finding]:
    """Return what an engine that writes the catalog would build where others see it before its tests have passed.

    Args:
        engine: Its name.
        slug: Of the product.
        nodes: Of dbt's manifest, as this engine's adapter parsed them; those that the engine builds.
        path_prefix: Folder of the product, for display.
    """
    if not ENGINES[engine].writes_catalog:
        return []
    findings = []
    if "__" in slug:
        findings.append(
            Finding(
                code="audit-schema-name",
                severity="error",
                message=f"the product's name has two hyphens in a row: {engine} would build it in {audit_schema(slug)!r}, which is "
                "the custom schema of another product",
                file=f"{path_prefix}/floe.yaml",
                line=1,
                field="metadata.name",
                found=slug.replace("_", "-"),
                allowed="a name with single hyphens",
                fix=f"Name the product {slug.replace('__', '_').replace('_', '-')}, or run it on {DEFAULT_ENGINE}.",
            )
        )
    for node in nodes:
        is_built = node["resource_type"] in ("model", "seed", "snapshot")
        if is_built and node["config"].get("materialized") != "ephemeral":
            findings += [
                Finding(
                    severity="error",
                    file=f"{path_prefix}/{node['original_file_path']}",
                    line=1,
                    model=asset_name(node),
                    **problem,  # type: ignore[arg-type]
                )
                for problem in _problems(engine, slug, node)
            ]
    return findings


def _problems(engine: str, slug: str, node: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield what a finding says of one node of dbt's manifest."""
    schema = audit_schema(slug)
    what = f"{node['resource_type']} {asset_name(node)!r}"
    materialized, on_table_exists = (node["config"].get(name) for name in ("materialized", "on_table_exists"))
    if not is_audit_schema(node["schema"], slug):
        yield {
            "code": "outside-audit-schema",
            "message": f"{what} would be built in schema {node['schema']!r}, where others see it before its tests have "
            f"passed: {engine} writes the catalog itself",
            "found": node["schema"],
            "allowed": f"{schema}, or a schema that begins with {schema}__",
            "fix": "Take the macro generate_schema_name, or target_schema, out of the project.",
        }
    elif node["schema"] != node["schema"].lower():
        yield {
            "code": "upper-case-name",
            "message": f"{what} would be built in schema {node['schema']!r}, and {engine} writes all names in lower case",
            "found": node["schema"],
            "allowed": node["schema"].lower(),
            "fix": "Write schema, and what generate_schema_name returns, in lower case.",
        }
    if hook := _dropping_hook(node):
        yield {
            "code": "drops-its-table",
            "message": f"{what} has a hook that drops or renames a table: what stands under the model's name while it is built "
            "shares its files with the published table, and dropping it would remove them",
            "field": "config.pre_hook or post_hook",
            "found": hook,
            "allowed": "hooks that drop and rename no table",
            "fix": "Take the hook out; the table is replaced in one commit.",
        }
    if node["alias"] != node["alias"].lower():
        yield {
            "code": "upper-case-name",
            "message": f"{what} is the relation {node['alias']!r}, and {engine} writes all names of relations in lower case: it "
            "would not be the table that is published",
            "found": node["alias"],
            "allowed": node["alias"].lower(),
            "fix": f"Name it {node['alias'].lower()}, or set config.alias to that; a table that is published under the other "
            "name stays as it is.",
        }
    if node["alias"].lower() in METADATA_TABLES:
        yield {
            "code": "metadata-table-name",
            "message": f"{what} has the name of one of Iceberg's metadata tables: a catalog that looks for it looks for "
            f"those of a table {node['schema']!r}",
            "found": node["alias"],
            "allowed": f"any name but {', '.join(sorted(METADATA_TABLES))}",
            "fix": "Give it another name.",
        }
    if materialized in ("table", "incremental", "seed") and on_table_exists not in (None, "replace"):
        yield {
            "code": "drops-its-table",
            "message": f"{what} sets on_table_exists, and would drop what is published to make it anew",
            "field": "config.on_table_exists",
            "found": str(on_table_exists),
            "allowed": "replace",
            "fix": "Remove on_table_exists; the table is replaced in one commit.",
        }
    if materialized == "materialized_view":
        yield {
            "code": "materialized-view",
            "message": f"{what} is a materialized view, which a REST catalog does not hold",
            "field": "config.materialized",
            "found": "materialized_view",
            "allowed": "table, incremental, view, ephemeral",
            "fix": "Materialize it as a table.",
        }


def _dropping_hook(node: Mapping[str, Any]) -> str | None:
    """Return the hook that drops or renames a table; what a macro does in one is not seen."""
    for hook in (*node["config"].get("pre-hook", ()), *node["config"].get("post-hook", ())):
        sql = " ".join(str(hook["sql"] if isinstance(hook, Mapping) else hook).split())
        if _DROPS.search(sql):
            return sql[:200]
    return None


def _check_shared(
    engine: str, engine_category: str, types: Mapping[str, str], places: Mapping[str, Place]
) -> list[Finding]:
    findings = []
    shared = shared_catalog_types()
    if types["catalog"] not in shared:
        category = "catalog" if "catalog" in places else engine_category
        findings.append(
            _at(
                places[category],
                category,
                code="unshared-catalog",
                message=f"{engine} writes the platform's catalog itself, and {types['catalog']!r} is none that it shares",
                found=types.get(category, engine),
                allowed=f"plugins.catalog.type {' or '.join(shared)}",
                fix=f"Name in plugins.catalog the catalog that {engine} has, or run on {DEFAULT_ENGINE}.",
            )
        )
    # A catalog that gives the keys itself needs no storage; one that is named has to be in reach of both.
    if "storage" in places and types["storage"] not in shared_storage_types():
        findings.append(
            _at(
                places["storage"],
                "storage",
                code="unshared-storage",
                message=f"{engine} writes the tables' files itself, and a folder of this machine is none that it shares",
                found=types["storage"],
                allowed=f"plugins.storage.type {' or '.join(shared_storage_types())}",
                fix=f"Name in plugins.storage where the tables of {engine} lie, or run on {DEFAULT_ENGINE}.",
            )
        )
    return findings


def _at(place: Place, category: str, **fields: str | None) -> Finding:
    file, line = place
    return Finding(
        severity="error",
        file=file,
        line=line,
        field=f"plugins.{category}.type",
        **fields,  # type: ignore[arg-type]
    )
