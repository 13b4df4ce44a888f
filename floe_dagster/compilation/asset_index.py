"""What the definitions need of a product, computed once at compile time.

Loading a code location happens in every process; dbt's manifest of a large project has tens of
megabytes. The index holds just what asset specs, checks, jobs and runs are built from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from floe_dagster.compilation.withholding import Withholding, all_tests
from floe_dagster.policies.asset_names import asset_name, named_by
from floe_dagster.policies.model import meta_of, tags_of
from floe_dagster.policies.places import DescriptionPlaces
from floe_dagster.policies.tiers import tier_of
from floe_dagster.schemas.artifacts import CompiledArtifacts
from floe_dagster.schemas.manifest import PlatformManifest
from floe_dagster.schemas.product import ProductSpec, Transform, duration_seconds
from floe_dagster.schemas.product_index import (
    NO_SETTINGS,
    Asset,
    Check,
    Column,
    ColumnRules,
    Freshness,
    Lifecycle,
    ProductFacts,
    ProductIndex,
    Relation,
    Schedule,
    TableSettings,
)

PUBLISHED_MATERIALIZATIONS = frozenset({"table", "incremental", "snapshot"})
EVERY_ROW = "!= 0"
"""dbt's own `error_if`: one row that a test finds is an error."""
ASSET_TYPES = frozenset({"model", "seed", "snapshot"})


def build_asset_index(
    artifact: CompiledArtifacts,
    dbt_manifest: Mapping[str, Any],
    *,
    spec: ProductSpec,
    manifest: PlatformManifest,
    places: DescriptionPlaces,
    lifecycle: Lifecycle | None = None,
    columns: ColumnRules | None = None,
    engines: Mapping[str, str] | None = None,
    relations: Mapping[str, Mapping[str, Relation]] | None = None,
) -> ProductIndex:
    """Return the index of a product.

    Args:
        artifact: The compiled artifact.
        dbt_manifest: dbt's manifest.
        spec: The product spec: schedule, freshness, preset, labels.
        manifest: The merged platform manifest: presets, default schedule.
        places: Where models are described.
        lifecycle: What governance says of tables; nothing when None.
        columns: What governance says of built columns; nothing when None.
        engines: Engine of each asset, by dbt's unique id; the default engine where nothing is said.
        relations: By engine and unique id, what the engine calls a relation; nothing where there is one engine.
    """
    transforms = {transform.name: transform for transform in spec.transforms or ()}
    tiers = {transform.name: transform.tier for transform in transforms.values() if transform.tier}
    nodes = asset_nodes(dbt_manifest)

    def transform_of(node: Mapping[str, Any]) -> Transform | None:
        named = named_by(node, transforms)
        return None if named is None else transforms[named]

    assets = tuple(
        Asset(
            id=unique_id,
            name=asset_name(node),
            type=node["resource_type"],
            materialized=node["config"].get("materialized") or node["resource_type"],
            published=is_published(node),
            engine=(engines or {}).get(unique_id, artifact.default_engine),
            relation=(node["database"], node["schema"], node["alias"]),
            deps=tuple(sorted(upstream_assets(node, nodes, dbt_manifest["nodes"]))),
            group=tier_of(node, tiers) or ("seeds" if node["resource_type"] == "seed" else "default"),
            description=node.get("description") or "",
            tags=_tags(node, transform_of(node)),
            owners=tuple(asset_owners(str(meta_of(node).get("owner") or spec.metadata.owner))),
            file=node["original_file_path"],
            checksum=str((node.get("checksum") or {}).get("checksum") or "")[:12],
            described=places.of(node),
            table=_table_settings(transform_of(node)),
            unique_key=_unique_key(node),
            batch_size=_batch_size(node),
            columns=tuple(_column(column) for column in node["columns"].values()),
            relations={
                engine: known[unique_id] for engine, known in (relations or {}).items() if unique_id in known
            },
        )
        for unique_id, node in nodes.items()
    )
    return ProductIndex(
        product=_product_facts(spec, manifest, lifecycle or Lifecycle(), artifact, columns or ColumnRules()),
        assets=assets,
        checks=tuple(_checks(dbt_manifest, nodes)),
        functions=tuple(sorted(dbt_manifest.get("functions") or ())),
    )


def _product_facts(
    spec: ProductSpec,
    manifest: PlatformManifest,
    lifecycle: Lifecycle,
    artifact: CompiledArtifacts,
    columns: ColumnRules,
) -> ProductFacts:
    preset = (manifest.resource_presets or {}).get(spec.resources or "")
    return ProductFacts(
        slug=spec.slug,
        name=spec.metadata.name,
        version=spec.metadata.version,
        owner=spec.metadata.owner,
        description=spec.metadata.description,
        labels=spec.metadata.labels or {},
        schedule=_schedule(spec, manifest),
        freshness=_freshness(spec),
        resources=preset.to_kubernetes() if preset else None,
        preset=spec.resources,
        repository=spec.repository,
        lifecycle=lifecycle,
        audited=artifact.governance is not None and artifact.governance.audit_logging == "enabled",
        columns=columns,
    )


def _tags(node: Mapping[str, Any], transform: Transform | None) -> tuple[str, ...]:
    return tuple(sorted({*tags_of(node), *((transform.tags if transform else None) or ())}))


def _column(column: Mapping[str, Any]) -> Column:
    classification = meta_of(column).get("classification")
    return Column(
        name=column["name"],
        type=column.get("data_type"),
        description=column.get("description") or "",
        tags=tuple(sorted(tags_of(column))),
        # YAML may hold anything there, a list or a number too.
        classification=str(classification) if classification else None,
    )


def _table_settings(transform: Transform | None) -> TableSettings:
    table = transform.table if transform else None
    if table is None:
        return NO_SETTINGS

    def listed(values: Sequence[str] | None) -> tuple[str, ...] | None:
        return None if values is None else tuple(values)

    return TableSettings(
        partition_by=listed(table.partition_by),
        sort_by=listed(table.sort_by),
        write_mode=table.write_mode,
        key=listed(table.key),
        properties=table.properties,
        expire_by=table.expire_by,
    )


def asset_nodes(dbt_manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the models, seeds and snapshots that are built, by dbt's unique id, in its order."""
    return {
        unique_id: node
        for unique_id, node in sorted(dbt_manifest["nodes"].items())
        if node["resource_type"] in ASSET_TYPES and node["config"].get("materialized") != "ephemeral"
    }


def is_published(node: Mapping[str, Any]) -> bool:
    """Tell whether a node of dbt's manifest becomes an Iceberg table."""
    floe = meta_of(node).get("floe")
    if isinstance(floe, dict) and isinstance(floe.get("publish"), bool):
        return bool(floe["publish"])
    return (
        node["resource_type"] in ("model", "snapshot")
        and node["config"].get("materialized") in PUBLISHED_MATERIALIZATIONS
    )


def _unique_key(node: Mapping[str, Any]) -> tuple[str, ...]:
    key = node["config"].get("unique_key")
    return tuple(str(column) for column in (key if isinstance(key, list) else [key] if key else []))


def _batch_size(node: Mapping[str, Any]) -> str:
    config = node["config"]
    is_microbatch = (
        config.get("materialized") == "incremental" and config.get("incremental_strategy") == "microbatch"
    )
    return str(config.get("batch_size") or "") if is_microbatch else ""


def upstream_assets(
    node: Mapping[str, Any], nodes: Mapping[str, Any], all_nodes: Mapping[str, Any]
) -> set[str]:
    """Return the ids of the assets that a node reads, through ephemeral models."""
    found: set[str] = set()
    pending = list(node["depends_on"]["nodes"]) if "nodes" in node.get("depends_on", {}) else []
    seen: set[str] = set()
    while pending:
        upstream = pending.pop()
        if upstream in seen:
            continue
        seen.add(upstream)
        if upstream in nodes:
            found.add(upstream)
        elif upstream in all_nodes:
            pending += all_nodes[upstream]["depends_on"].get("nodes", [])
    return found


def asset_owners(owner: str) -> list[str]:
    """Return an owner as Dagster takes one: an e-mail address, or a team; none where nobody is named.

    Args:
        owner: As people write it.
    """
    owner = owner.strip()
    if re.fullmatch(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}", owner):
        return [owner]
    team = owner.removeprefix("team:")
    if owner.startswith("team:") and team:
        return [owner]
    name = re.sub(r"[^\w-]+", "-", team).strip("-") or team
    return [f"team:{name}"] if name else []


def _schedule(spec: ProductSpec, manifest: PlatformManifest) -> Schedule | None:
    if spec.schedule:
        return Schedule(spec.schedule.cron, spec.schedule.timezone, spec.schedule.enabled)
    orchestrator = manifest.plugins.orchestrator
    cron = orchestrator.config.default_schedule if orchestrator else None
    return Schedule(cron) if cron else None


def _freshness(spec: ProductSpec) -> Freshness | None:
    if spec.freshness is None:
        return None
    warn = spec.freshness.warn_after
    return Freshness(
        fail_seconds=duration_seconds(spec.freshness.fail_after),
        warn_seconds=duration_seconds(warn) if warn else None,
    )


def dagster_identifier(name: str) -> str:
    """Return what Dagster makes of a name where it needs one of letters, digits and `_`."""
    return name.replace("-", "_").replace(".", "_")


def _checks(manifest: Mapping[str, Any], nodes: Mapping[str, Any]) -> Iterator[Check]:
    all_nodes = manifest["nodes"]
    withholding = Withholding(manifest, nodes)
    # Assets and checks are outputs of one step, a check under the name of its asset and its own.
    taken = {dagster_identifier(asset_name(node)) for node in nodes.values()}
    for unique_id, node in sorted(all_tests(manifest).items()):
        withheld = withholding.judged(node)
        if not withheld:
            # It concerns nothing that is an asset.
            continue
        read = [upstream for upstream in node["depends_on"]["nodes"] if upstream in nodes]
        # dbt names what a generic test is attached to; that may be no asset itself.
        asset = withheld[0]
        severity = str(node["config"].get("severity") or "error").lower()
        name = _free_name(re.sub(r"[^A-Za-z0-9_]", "_", node["name"]), asset_name(nodes[asset]), taken)
        yield Check(
            id=unique_id,
            name=name,
            asset=asset,
            reads=(*read, *sorted(upstream_assets(node, nodes, all_nodes) - set(read))),
            withholds=tuple(withheld),
            type="unit_test" if node["resource_type"] == "unit_test" else "data_test",
            severity="warn" if severity == "warn" else "error",
            # Below the threshold of `error_if` an error test only warns; without one it cannot.
            may_warn=severity == "warn" or node["config"].get("error_if", EVERY_ROW) != EVERY_ROW,
            kind=(node.get("test_metadata") or {}).get("name"),
            column=node.get("column_name"),
            description=node.get("description") or _describe(node),
            file=node.get("original_file_path"),
        )


def _free_name(wanted: str, asset: str, taken: set[str]) -> str:
    """Return the name of a check, numbered where its output would be called like another one; adds it to `taken`."""
    name, number = wanted, 0
    while (output := f"{dagster_identifier(asset)}_{name}") in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(output)
    return name


def _describe(node: Mapping[str, Any]) -> str:
    generic = node.get("test_metadata")
    if not generic:
        return "Unit test" if node["resource_type"] == "unit_test" else "Singular test"
    column = node.get("column_name")
    return f"{generic['name']} on {column}" if column else str(generic["name"])
