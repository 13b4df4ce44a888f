"""dbt, catalog and storage as Dagster resources, built from the compiled artifact of a product.

They are configuration alone, visible in Dagster's UI. A secret is the reference `${NAME}` until the catalog is opened:
`EnvVar` would be read where a run is planned, so the code server would need every secret of its runs. Who builds such a
resource by hand may use `EnvVar` all the same.
"""

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar, Self

import dagster as dg
from pydantic import Field

from floe_dagster.credentials import environment_name
from floe_dagster.execution.dbt_process import DbtProgram
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.schemas.artifacts import PluginRef, ResolvedPlugins
from floe_dagster.schemas.catalog_types import CATALOG_TYPES, DEFAULT_CATALOG_TYPE
from floe_dagster.schemas.storage_types import DEFAULT_STORAGE_TYPE, STORAGE_TYPES

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

STORAGE_KEYS = ("access_key_id", "secret_access_key")
"""Settings of a storage that a catalog may give in their place."""


class DbtResource(dg.ConfigurableResource[Any]):
    """The dbt that a run starts. `DbtCliResource` of dagster-dbt says the same, and may stand in its place."""

    dbt_executable: str = Field(description="Path of the dbt that runs: this environment's own.")
    global_config_flags: list[str] = Field(default=[], description="Global flags of dbt, before its command.")

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Let dbt be imported while the step gets ready.

        Dagster makes a resource in the process that executes a step which requires it, and in no other: not in a code server, not in
        the process of a run whose steps have processes of their own, and not for maintenance.

        Args:
            context: Of the resource.
        """
        DbtProgram(self.dbt_executable, tuple(self.global_config_flags)).warm()


class PluginResource(dg.ConfigurableResource[Any]):
    """A plugin of the platform; each type has its settings as fields."""

    plugin_type: ClassVar[str]
    """What the manifest calls the type."""

    def plugin(self) -> PluginRef:
        """Return the plugin as the artifact has it, secrets as references."""
        return PluginRef(type=self.plugin_type, config=self.settings())

    def settings(self) -> dict[str, Any]:
        """Return `config` of the plugin: the fields that are set."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}

    @classmethod
    def of_plugin(cls, plugin: PluginRef) -> Self:
        """Return the resource for what an artifact has; `${NAME}` stands for a secret.

        Args:
            plugin: Of `plugins` of the artifact.
        """
        return cls(**configured(plugin.config or {}))


class StorageResource(PluginResource):
    """A storage for tables (`StorageType.resource`)."""


class CatalogResource(PluginResource):
    """An Iceberg catalog (`CatalogType.resource`)."""

    def open(self, storage: StorageResource, home: FloeHome) -> "Catalog":
        """Open the catalog; see `open_catalog`."""
        return open_catalog(self.plugin(), storage.plugin(), home=home)


class AnyCatalogResource(CatalogResource):
    """An Iceberg catalog of a type that has no resource of its own, and so says as a setting which one it is."""

    type: str = Field(description="Type of the catalog.")
    config: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the catalog, secrets as the reference ${NAME}."
    )

    def plugin(self) -> PluginRef:
        """Return the plugin as the artifact has it; see `PluginResource.plugin`."""
        return PluginRef(type=self.type, config=dict(self.config))

    @classmethod
    def of_plugin(cls, plugin: PluginRef) -> Self:
        """Return the resource for what an artifact has; see `PluginResource.of_plugin`."""
        return cls(type=plugin.type, config=configured(plugin.config or {}))


def build_resources(slug: str, plugins: ResolvedPlugins | None) -> dict[str, Any]:
    """Return catalog and storage of one product, by resource key.

    Args:
        slug: Of the product; several products fit into one location.
        plugins: From the compiled artifact.

    Raises:
        ValueError: A type that this version does not know.
    """
    catalog = (plugins.catalog if plugins else None) or PluginRef(type=DEFAULT_CATALOG_TYPE)
    storage = (plugins.storage if plugins else None) or PluginRef(type=DEFAULT_STORAGE_TYPE)
    for plugin, known in ((catalog, CATALOG_TYPES), (storage, STORAGE_TYPES)):
        if plugin.type not in known:
            raise ValueError(f"{plugin.type!r} is not known to this version; it knows: {', '.join(known)}")
    kind = CATALOG_TYPES[catalog.type]
    if kind.gives_keys(catalog.config or {}):
        # A run does not even need to know others.
        settings = {name: value for name, value in (storage.config or {}).items() if name not in STORAGE_KEYS}
        storage = PluginRef(type=storage.type, config=settings)
    return {
        catalog_key(slug): resolve_name(kind.resource).of_plugin(catalog),
        storage_key(slug): resolve_name(STORAGE_TYPES[storage.type].resource).of_plugin(storage),
    }


def catalog_key(slug: str) -> str:
    """Return the resource key of a product's catalog."""
    return f"{slug}_catalog"


def storage_key(slug: str) -> str:
    """Return the resource key of a product's storage."""
    return f"{slug}_storage"


def configured(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a plugin as a resource has them: a reference to a secret as `${NAME}`.

    Args:
        settings: Of the artifact.
    """
    shown = {}
    for name, value in settings.items():
        variable = environment_name(value)
        if variable is None and isinstance(value, Mapping):
            value = configured(value)
        shown[name] = f"${{{variable}}}" if variable else value
    return shown
