"""What a dataset is called in OpenLineage.

An Iceberg table is named by its location, as OpenLineage's own Spark integration names it, with its name in the catalog
and in the engine as symlinks: so the events of every engine that reads or writes the table speak of one dataset.
A relation that is not published is named by its engine (`Engine.data_source`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from floe_dagster.schemas.artifacts import CompiledArtifacts, ResolvedPlugins
from floe_dagster.schemas.catalog_types import CATALOG_TYPES, DEFAULT_CATALOG_TYPE
from floe_dagster.schemas.compute import ENGINES
from floe_dagster.schemas.product_index import Asset
from floe_dagster.schemas.storage_types import DEFAULT_STORAGE_TYPE


@dataclass(frozen=True, slots=True)
class DatasetName:
    """Namespace and name of a dataset, and what else it is called.

    Args:
        namespace: Of the data source.
        name: In the namespace.
        symlinks: Namespace and name, each another name of the same dataset.
    """

    namespace: str
    name: str
    symlinks: tuple[tuple[str, str], ...] = field(default=(), compare=False)


def location_name(location: str) -> tuple[str, str]:
    """Return namespace and name of a table's location, as the spec names files and objects."""
    parsed = urlsplit(location)
    if parsed.scheme in ("", "file"):
        return "file", parsed.path or location
    scheme = "s3" if parsed.scheme in ("s3a", "s3n") else parsed.scheme
    return f"{scheme}://{parsed.netloc}", parsed.path.strip("/")


@dataclass(frozen=True, slots=True)
class CatalogNames:
    """How the catalog of a product is called.

    Args:
        type: `plugins.catalog.type`.
        namespace: Of the tables in it, in symlinks.
        uri: Of the catalog; None for the embedded one.
        warehouse: As the catalog knows it.
        storage: Type of the storage.
    """

    type: str
    namespace: str
    uri: str | None
    warehouse: str | None
    storage: str

    @classmethod
    def of_plugins(cls, plugins: ResolvedPlugins | None) -> CatalogNames:
        """Return the names for the plugins of an artifact; addresses without user information."""
        catalog = plugins.catalog if plugins else None
        storage = plugins.storage.type if plugins and plugins.storage else DEFAULT_STORAGE_TYPE
        config = (catalog.config if catalog else None) or {}
        kind = catalog.type if catalog else DEFAULT_CATALOG_TYPE
        known = CATALOG_TYPES.get(kind)
        # One that is not shared is a database; its URI is of no use to others, and nothing to show.
        is_address = bool(config.get("uri")) and (known is None or known.is_shared)
        uri = _without_user(str(config["uri"]).rstrip("/")) if is_address else None
        warehouse = config.get("warehouse")
        return cls(kind, uri or "iceberg", uri, str(warehouse) if warehouse else None, storage)


@dataclass(frozen=True, slots=True)
class EngineNames:
    """How the relations of an engine that a product is computed with are called.

    Args:
        system: OpenTelemetry's `db.system.name`.
        namespace: Of its relations, as OpenLineage names the data source.
        database: Where published tables stand under their own names, in the engine; None where the engine only computes
            them.
    """

    system: str
    namespace: str
    database: str | None = None

    @classmethod
    def by_engine(cls, artifact: CompiledArtifacts, slug: str) -> dict[str, EngineNames]:
        """Return the names for each engine of an artifact, by its type, without anything of this machine.

        Args:
            artifact: The compiled artifact.
            slug: Of the product.
        """
        settings: dict[str, Mapping[str, Any]] = {artifact.default_engine: {}}
        if artifact.plugins is not None:
            settings |= {name: plugin.config or {} for name, plugin in artifact.plugins.engines().items()}
        profile = (artifact.dbt_profiles or {}).get(slug)
        profiled = profile["outputs"][profile["target"]] if profile else None
        return {
            name: cls._of(name, slug, config, profiled if name == artifact.default_engine else None)
            for name, config in settings.items()
        }

    @classmethod
    def _of(
        cls, name: str, slug: str, config: Mapping[str, Any], profiled: Mapping[str, Any] | None
    ) -> EngineNames:
        engine = ENGINES.get(name)
        if engine is None:
            # A newer version compiled it: this one runs nothing on it, and shows what was compiled.
            return cls(name, name)
        source = engine.data_source(profiled or engine.dbt_output(slug, config))
        return cls(name, source.namespace, source.database)


def engine_name(asset: Asset, slug: str, engine: EngineNames) -> tuple[str, str]:
    """Return namespace and name of an asset's relation in the engine.

    Args:
        asset: The model, seed or snapshot.
        slug: Of the product; the schema of what is published.
        engine: Where it is computed.
    """
    if engine.database is not None and asset.published:
        return engine.namespace, f"{engine.database}.{slug}.{asset.name}"
    return engine.namespace, asset.full_relation


def table_name(
    asset: Asset, slug: str, location: str, catalog: CatalogNames, engine: EngineNames
) -> DatasetName:
    """Return what a published table is called.

    Args:
        asset: The model, seed or snapshot.
        slug: Of the product; the Iceberg namespace.
        location: Of the table.
        catalog: Where it is registered.
        engine: Where it is computed.
    """
    namespace, name = location_name(location)
    symlinks = ((catalog.namespace, f"{slug}.{asset.name}"), engine_name(asset, slug, engine))
    return DatasetName(namespace, name, symlinks)


def relation_name(asset: Asset, engine: EngineNames) -> DatasetName:
    """Return what a relation is called that is not published."""
    return DatasetName(engine.namespace, asset.full_relation)


def column_inputs(
    lineage: Mapping[str, Sequence[tuple[str, str]]], names: Mapping[str, DatasetName]
) -> dict[str, list[tuple[DatasetName, str]]]:
    """Return column lineage with datasets in place of assets.

    Args:
        lineage: By column: names of assets and their columns.
        names: Dataset by the asset's name.
    """
    return {
        column: [(names[asset], source) for asset, source in sources if asset in names]
        for column, sources in lineage.items()
    }


def _without_user(url: str) -> str:
    parsed = urlsplit(url)
    return url.replace(f"{parsed.netloc.rpartition('@')[0]}@", "", 1) if "@" in parsed.netloc else url
