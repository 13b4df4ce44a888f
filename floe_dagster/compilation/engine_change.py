"""What another engine, or other settings of the same one, mean for a product that was compiled before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from floe_dagster.compilation.profiles import TARGET
from floe_dagster.credentials import environment_name
from floe_dagster.schemas.compute import ENGINES
from floe_dagster.schemas.compute.engine import FLOE_HOME_REFERENCE, STATEFUL, audit_schema

DIFFERENCES = "docs/trino.md#where-the-engines-differ"


@dataclass(frozen=True, slots=True)
class Build:
    """Where and how a compiled product is built.

    Args:
        slug: Of the product.
        engine: `plugins.compute.type`.
        config: `plugins.compute.config`.
        catalog: Type and settings of `plugins.catalog`, which tell one catalog from another.
        place: Where relations stand before they are published: a file, or a schema of a catalog.
        assets: Of the asset index.
    """

    slug: str
    engine: str
    config: Mapping[str, Any]
    catalog: Mapping[str, Any]
    place: str
    assets: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, artifact: Mapping[str, Any], index: Mapping[str, Any]) -> Build | None:
        """Return that of one compilation; None where its artifact is older than plugins are.

        Args:
            artifact: CompiledArtifacts as JSON values.
            index: See `asset_index.build_asset_index`.
        """
        if not artifact.get("plugins"):
            return None
        compute, catalog = artifact["plugins"]["compute"], artifact["plugins"].get("catalog") or {}
        slug = index["product"]["slug"]
        output = ((artifact.get("dbt_profiles") or {}).get(slug) or {}).get("outputs", {}).get(TARGET, {})
        settings = catalog.get("config") or {}
        return cls(
            slug,
            compute["type"],
            compute.get("config") or {},
            {
                "type": catalog.get("type", "sql"),
                **{name: settings.get(name) for name in ("uri", "warehouse")},
            },
            _place(output),
            tuple(index["assets"]),
        )

    @property
    def writes_catalog(self) -> bool:
        """The engine writes the platform's catalog itself."""
        return self.engine in ENGINES and ENGINES[self.engine].writes_catalog


@dataclass(frozen=True, slots=True)
class Consequence:
    """What one change means.

    Args:
        topic: models, tables, views, rows, state, pool, types, before or settings.
        names: The models that it is about; none where it is about all, or about no model.
        text: What it means, and what to do.
    """

    topic: str
    names: tuple[str, ...]
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Return the three fields as JSON values."""
        return {"topic": self.topic, "names": list(self.names), "text": self.text}


def engine_consequences(before: Build | None, after: Build | None) -> list[Consequence]:
    """Return what a change of `plugins.compute` means; nothing where there is none.

    Args:
        before: What was compiled last.
        after: What would be compiled now.
    """
    if before is None or after is None:
        return []
    if before.engine != after.engine:
        return list(_other_engine(before, after))
    if before.config != after.config or before.place != after.place:
        return list(_other_settings(before, after))
    return []


def _other_engine(before: Build, after: Build) -> Iterator[Consequence]:
    kept = {asset["id"] for asset in before.assets}
    assets = [asset for asset in after.assets if asset["id"] in kept]
    published = [asset for asset in assets if asset["published"]]
    yield Consequence(
        "models",
        _names(assets),
        f"are computed by {after.engine} in {after.place}, no longer by {before.engine} in {before.place}",
    )
    yield from _tables(before, after, published)
    yield from _views(after, assets)
    yield from _state(before, after, assets)
    yield Consequence(
        "pool",
        (),
        f"a run takes a slot of {after.slug}_{after.engine}, no longer of {before.slug}_{before.engine}: name the new one where "
        "the instance has limits of its own, and let runs of the old engine end before the first one of the new",
    )
    yield Consequence(
        "types",
        (),
        "a column whose type both engines compute differently keeps its table from being published, with the cast that is "
        f"needed: {DIFFERENCES}. `floe-dagster diff --published` compares declared types; others are found at publication",
    )
    yield from _needed(before, after)


def _tables(before: Build, after: Build, published: list[Mapping[str, Any]]) -> Iterator[Consequence]:
    if not published:
        return
    if before.catalog != after.catalog:
        yield Consequence(
            "tables",
            _names(published),
            "plugins.catalog is another one, too: what is published in the old one stays there and is no longer extended; each "
            "is published anew, and what is incremental begins anew",
        )
        return
    yield Consequence(
        "tables",
        _names(published),
        f"stay where they are published, in {after.slug}, with their snapshots: the next run commits to them"
        + (
            ", by metadata alone"
            if after.writes_catalog
            else ", with the rows that DuckDB computes in the run's process"
            if after.engine == "duckdb"
            else ""
        ),
    )


def _views(after: Build, assets: list[Mapping[str, Any]]) -> Iterator[Consequence]:
    views = [asset for asset in assets if asset["materialized"] == "view"]
    published = [asset for asset in views if asset["published"]]
    other = [asset for asset in views if not asset["published"]]
    modes = [
        asset
        for asset in assets
        if asset["published"]
        and asset["materialized"] not in (*STATEFUL, "view")
        and (asset.get("table") or {}).get("write_mode", "overwrite") != "overwrite"
    ]
    if published:
        more = ", by one more statement in Trino" if after.writes_catalog else ""
        yield Consequence("views", _names(published), f"are published as tables, as before{more}")
    if other:
        yield Consequence(
            "views", _names(other), f"are views in {after.place}, made anew by a run that reads them"
        )
    if modes and after.writes_catalog:
        yield Consequence(
            "rows",
            _names(modes),
            "are appended to, or upserted into, their tables by one more statement in Trino",
        )


def _state(before: Build, after: Build, assets: list[Mapping[str, Any]]) -> Iterator[Consequence]:
    stateful = [asset for asset in assets if asset["materialized"] in STATEFUL]
    kept = [asset for asset in stateful if asset["published"]] if before.catalog == after.catalog else []
    lost = [asset for asset in stateful if not asset["published"]]
    if kept:
        how = "a clone of" if after.writes_catalog else "the rows of"
        yield Consequence(
            "state", _names(kept), f"go on where they are: a run begins with {how} the published table"
        )
    if lost:
        yield Consequence(
            "state",
            _names(lost),
            f"are not published, so what they hold stays in {before.place}: they begin anew with what their sources hold now. "
            "Publish them (meta: {floe: {publish: true}}) and run once before the change to keep it",
        )
    others = [
        asset
        for asset in assets
        if not asset["published"] and asset["materialized"] not in (*STATEFUL, "view")
    ]
    if others:
        yield Consequence(
            "state", _names(others), "are not published: the next run that reads them builds them"
        )
    yield Consequence("state", (), _left_behind(before, after))


def _left_behind(before: Build, after: Build) -> str:
    if before.writes_catalog:
        return (
            f"what is not published stays in {before.place}, and is read by nobody any more. Take it away through the catalog, "
            "without purge, never by DROP in Trino: a clone that a killed run left shares its files with the published table"
        )
    return f"{before.place} was a cache: it is read by nobody any more, and can be removed"


def _needed(before: Build, after: Build) -> Iterator[Consequence]:
    engine = ENGINES.get(after.engine)
    if engine is not None and engine.extra:
        yield Consequence("before", (), f"where runs are: floe-dagster[{engine.extra}]")
    if after.writes_catalog:
        yield Consequence(
            "before",
            (),
            f"in Trino: a catalog {after.config.get('catalog')} of connector.name=iceberg, iceberg.catalog.type=rest, on the "
            f"address and warehouse of plugins.catalog; the right to create, write and drop tables and views in "
            f"{audit_schema(after.slug)}, and to read {after.slug}. In Kubernetes: networkPolicy.external.compute",
        )
    elif before.writes_catalog:
        yield Consequence(
            "before",
            (),
            "memory and disk for all of the product in the run's process or pod: its preset (resources), and "
            "plugins.compute.config.memory_limit",
        )
    if variables := sorted(set(_variables(after.config)) - set(_variables(before.config))):
        yield Consequence("before", (), f"set where runs are: {', '.join(variables)}")
    if after.writes_catalog:
        yield Consequence(
            "before",
            (),
            f"`floe-dagster platform check --namespace {after.slug}` looks at all of this where a run would be",
        )


def _other_settings(before: Build, after: Build) -> Iterator[Consequence]:
    changed = sorted(
        name for name in {*before.config, *after.config} if before.config.get(name) != after.config.get(name)
    )
    listed = ", ".join(f"plugins.compute.config.{name}" for name in changed)
    if before.place == after.place or after.writes_catalog:
        # Behind another name, or at another coordinator, may stand the same catalog; it has to.
        elsewhere = after.writes_catalog and {"host", "port", "catalog"} & set(changed)
        yield Consequence(
            "settings",
            (),
            f"{listed}: how {after.engine} is reached and computes; no model moves, nothing is computed anew"
            + (
                f". Its catalog {after.config.get('catalog')} has to be that of plugins.catalog there, too: `floe-dagster "
                f"platform check --namespace {after.slug}`"
                if elsewhere
                else ""
            ),
        )
    else:
        yield Consequence(
            "models",
            _names(after.assets),
            f"are built in {after.place}, no longer in {before.place} ({listed})",
        )
        kept = {asset["id"] for asset in before.assets}
        assets = [asset for asset in after.assets if asset["id"] in kept]
        yield from _tables(before, after, [asset for asset in assets if asset["published"]])
        yield from _state(before, after, assets)
    if variables := sorted(set(_variables(after.config)) - set(_variables(before.config))):
        yield Consequence("before", (), f"set where runs are: {', '.join(variables)}")


def _place(output: Mapping[str, Any]) -> str:
    if output.get("path"):
        return str(output["path"]).replace(FLOE_HOME_REFERENCE, "FLOE_HOME")
    return f"{output.get('database')}.{output.get('schema')}"


def _variables(value: Any) -> Iterator[str]:
    """Yield the names of the environment variables that settings refer to."""
    name = environment_name(value)
    if name is not None:
        yield name
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _variables(inner)


def _names(assets: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(sorted(asset["name"] for asset in assets))
