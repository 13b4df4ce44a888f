"""What another engine, or other settings of the same one, mean for a product that was compiled before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from floe_dagster.credentials import environment_name
from floe_dagster.schemas.catalog_types import DEFAULT_CATALOG_TYPE
from floe_dagster.schemas.compute import ENGINES
from floe_dagster.schemas.compute.engine import Engine, compute_field
from floe_dagster.schemas.product_index import Asset, ProductIndex

DIFFERENCES = "docs/trino.md#where-the-engines-differ"


@dataclass(frozen=True, slots=True)
class EngineInUse:
    """One engine that a compiled product may run on.

    Args:
        name: Such as `plugins.compute.type`.
        known: What is known of it; None of one that a newer version compiled for.
        field: Where the manifest has it: `plugins.compute` or `plugins.additional_compute (trino)`.
        config: Its settings.
        place: Where relations stand before they are published: a file, or a schema of a catalog.
        database: What the engine calls the platform's catalog; None where it does not write it.
    """

    name: str
    known: Engine | None
    field: str
    config: Mapping[str, Any]
    place: str
    database: str | None

    @property
    def writes_catalog(self) -> bool:
        """The engine writes the platform's catalog itself."""
        return self.known is not None and self.known.writes_catalog

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.known.title if self.known else self.name


@dataclass(frozen=True, slots=True)
class Build:
    """Where and how a compiled product is built.

    Args:
        slug: Of the product.
        default: `plugins.compute.type`.
        engines: By name; the default one, and those that transforms name.
        catalog: Type and settings of `plugins.catalog`, which tell one catalog from another.
        assets: Of the index, each with its engine.
    """

    slug: str
    default: str
    engines: Mapping[str, EngineInUse]
    catalog: Mapping[str, Any]
    assets: tuple[Asset, ...]

    @classmethod
    def of(cls, artifact: Mapping[str, Any], index: ProductIndex) -> Build | None:
        """Return that of one compilation; None where its artifact is older than plugins are.

        Args:
            artifact: CompiledArtifacts as JSON values.
            index: Of that compilation.
        """
        plugins, slug = artifact.get("plugins"), index.product.slug
        if not plugins:
            return None
        default, catalog = plugins["compute"]["type"], plugins.get("catalog") or {}
        settings = catalog.get("config") or {}
        engines = {
            compute["type"]: _in_use(
                slug, compute["type"], compute_field(compute["type"], default), compute.get("config") or {}
            )
            for compute in (*(plugins.get("additional_compute") or ()), plugins["compute"])
        }
        return cls(
            slug,
            default,
            engines,
            {
                "type": catalog.get("type", DEFAULT_CATALOG_TYPE),
                **{name: settings.get(name) for name in ("uri", "warehouse")},
            },
            index.assets,
        )

    def on(self, engine: str) -> list[Asset]:
        """Return the assets that an engine builds.

        Args:
            engine: Its name.
        """
        return [asset for asset in self.assets if asset.engine == engine]


@dataclass(frozen=True, slots=True)
class Consequence:
    """What one change means.

    Args:
        topic: models, tables, views, rows, state, types, before or settings.
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
    """Return what a change of engines, or of their settings, means; nothing where there is none.

    Args:
        before: What was compiled last.
        after: What would be compiled now.
    """
    if before is None or after is None:
        return []
    found: list[Consequence] = []
    moved = list(_moved(before, after))
    for old, new, assets in moved:
        found += _to_another_engine(before, after, old, new, assets)
    if found:
        found.append(_TYPES)
    for name in before.engines:
        if not after.on(name) and before.on(name):
            found.append(_left_behind(before, before.engines[name]))
    for name, engine in after.engines.items():
        if not before.on(name) and after.on(name):
            found += _needed(after, engine)
        elif name in before.engines:
            found += _other_settings(before, after, before.engines[name], engine)
    # What the other engine computed needs room in the run's own process now.
    if any(old.writes_catalog and not new.writes_catalog for old, new, _ in moved):
        found.append(_ROOM)
    return found


_TYPES = Consequence(
    "types",
    (),
    "a column whose type both engines compute differently keeps its table from being published, with the cast that is "
    f"needed: {DIFFERENCES}. `floe-dagster diff --published` compares declared types; others are found at publication",
)
_ROOM = Consequence(
    "before",
    (),
    "memory and disk for all that moves in the run's process or pod: the product's preset (resources), and the engine's "
    "config.memory_limit",
)


def _moved(before: Build, after: Build) -> Iterator[tuple[EngineInUse, EngineInUse, list[Asset]]]:
    """Yield from where to where, with the assets that are both in the old build and in the new one."""
    engines = {asset.id: asset.engine for asset in before.assets}
    for old in before.engines.values():
        for new in after.engines.values():
            assets = [asset for asset in after.on(new.name) if engines.get(asset.id) == old.name]
            if old.name != new.name and assets:
                yield old, new, assets


def _to_another_engine(
    before: Build, after: Build, old: EngineInUse, new: EngineInUse, assets: list[Asset]
) -> Iterator[Consequence]:
    yield Consequence(
        "models",
        _names(assets),
        f"are computed by {new.name} in {new.place}, no longer by {old.name} in {old.place}",
    )
    yield from _tables(before, after, new, [asset for asset in assets if asset.published])
    yield from _views(new, assets)
    yield from _state(before, after, old, new, assets)


def _tables(before: Build, after: Build, new: EngineInUse, published: list[Asset]) -> Iterator[Consequence]:
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
            if new.writes_catalog
            else f", with the rows that {new.title} computes in the run's process"
            if new.known
            else ""
        ),
    )


def _views(new: EngineInUse, assets: list[Asset]) -> Iterator[Consequence]:
    views = [asset for asset in assets if asset.is_view]
    published = [asset for asset in views if asset.published]
    other = [asset for asset in views if not asset.published]
    modes = [
        asset
        for asset in assets
        if asset.published and not (asset.is_stateful or asset.is_view) and asset.table.mode != "overwrite"
    ]
    if published:
        more = f", by one more statement in {new.title}" if new.writes_catalog else ""
        yield Consequence("views", _names(published), f"are published as tables, as before{more}")
    if other:
        yield Consequence(
            "views", _names(other), f"are views in {new.place}, made anew by a run that reads them"
        )
    if modes and new.writes_catalog:
        yield Consequence(
            "rows",
            _names(modes),
            f"are appended to, or upserted into, their tables by one more statement in {new.title}",
        )


def _state(
    before: Build, after: Build, old: EngineInUse, new: EngineInUse, assets: list[Asset]
) -> Iterator[Consequence]:
    stateful = [asset for asset in assets if asset.is_stateful]
    kept = [asset for asset in stateful if asset.published] if before.catalog == after.catalog else []
    lost = [asset for asset in assets if _is_only_here(asset)]
    if kept:
        how = "a clone of" if new.writes_catalog else "the rows of"
        yield Consequence(
            "state", _names(kept), f"go on where they are: a run begins with {how} the published table"
        )
    if lost:
        yield Consequence(
            "state",
            _names(lost),
            f"are not published, so what they hold stays in {old.place}: they begin anew with what their sources hold now. "
            "Publish them (meta: {floe: {publish: true}}) and run once before the change to keep it",
        )
    others = [asset for asset in assets if not asset.published and not (asset.is_stateful or asset.is_view)]
    if others:
        yield Consequence(
            "state", _names(others), "are not published: the next run that reads them builds them"
        )


def _left_behind(before: Build, old: EngineInUse) -> Consequence:
    if old.writes_catalog:
        return Consequence(
            "state",
            (),
            f"what is not published stays in {old.place}, and is read by nobody any more. Take it away through the catalog, "
            f"without purge, never by DROP in {old.title}: a clone that a killed run left shares its files with the published table",
        )
    holds = [asset for asset in before.on(old.name) if _is_only_here(asset)]
    if holds:
        return Consequence(
            "state",
            _names(holds),
            f"{old.place} has the only copy of what they hold: keep it as long as that may be needed. All else in it was a "
            "cache, and is read by nobody any more",
        )
    return Consequence(
        "state", (), f"{old.place} was a cache: it is read by nobody any more, and can be removed"
    )


def _is_only_here(asset: Asset) -> bool:
    """Whether what a model holds stands nowhere but where its engine built it, and cannot be computed anew."""
    return asset.is_stateful and not asset.published


def _needed(after: Build, new: EngineInUse) -> Iterator[Consequence]:
    if new.known and new.known.extra:
        yield Consequence("before", (), f"where runs are: floe-dagster[{new.known.extra}]")
    if new.known and new.known.needs:
        there = new.known.needs(after.slug, new.config)
        yield Consequence("before", (), f"{there}. In Kubernetes: networkPolicy.external.compute")
    if variables := sorted(set(_variables(new.config))):
        yield Consequence("before", (), f"set where runs are: {', '.join(variables)}")
    if new.writes_catalog:
        yield Consequence(
            "before",
            (),
            f"`floe-dagster platform check --namespace {after.slug}` looks at all of this where a run would be",
        )


def _other_settings(before: Build, after: Build, old: EngineInUse, new: EngineInUse) -> Iterator[Consequence]:
    changed = sorted(
        name for name in {*old.config, *new.config} if old.config.get(name) != new.config.get(name)
    )
    if not changed and old.place == new.place:
        return
    listed = ", ".join(f"{new.field}.config.{name}" for name in changed)
    if old.place == new.place or new.writes_catalog:
        # Behind another name, or at another coordinator, may stand the same catalog; it has to.
        elsewhere = new.known is not None and new.known.catalog_settings & set(changed)
        yield Consequence(
            "settings",
            (),
            f"{listed}: how {new.name} is reached and computes; no model moves, nothing is computed anew"
            + (
                f". Its catalog {new.database} has to be that of plugins.catalog there, too: `floe-dagster platform check "
                f"--namespace {after.slug}`"
                if elsewhere
                else ""
            ),
        )
    elif stayed := [asset for asset in after.on(new.name) if asset.id in _ids(before.on(old.name))]:
        yield Consequence(
            "models", _names(stayed), f"are built in {new.place}, no longer in {old.place} ({listed})"
        )
        yield from _tables(before, after, new, [asset for asset in stayed if asset.published])
        yield from _state(before, after, old, new, stayed)
        yield _left_behind(before, old)
    if variables := sorted(set(_variables(new.config)) - set(_variables(old.config))):
        yield Consequence("before", (), f"set where runs are: {', '.join(variables)}")


def _in_use(slug: str, name: str, field: str, config: Mapping[str, Any]) -> EngineInUse:
    known = ENGINES.get(name)
    if known is None:
        return EngineInUse(name, None, field, config, name, None)
    output = known.dbt_output(slug, config)
    return EngineInUse(name, known, field, config, known.place(output), known.data_source(output).database)


def _variables(value: Any) -> Iterator[str]:
    """Yield the names of the environment variables that settings refer to."""
    name = environment_name(value)
    if name is not None:
        yield name
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _variables(inner)


def _ids(assets: Iterable[Asset]) -> set[str]:
    return {asset.id for asset in assets}


def _names(assets: Iterable[Asset]) -> tuple[str, ...]:
    return tuple(sorted(asset.name for asset in assets))
