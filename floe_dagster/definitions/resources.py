"""dbt, catalog and storage as Dagster resources, built from the compiled artifact of a product.

They are configuration alone, visible in Dagster's UI. A secret is the reference `${NAME}` until the catalog is opened:
`EnvVar` would be read where a run is planned, so the code server would need every secret of its runs. Who builds such a
resource by hand may use `EnvVar` all the same.
"""

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Self

import dagster as dg
from pydantic import Field

from floe_dagster.credentials import environment_name
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.schemas.artifacts import PluginRef, ResolvedPlugins
from floe_dagster.schemas.catalog_types import CATALOG_TYPES, DEFAULT_CATALOG_TYPE

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog


class DbtResource(dg.ConfigurableResource[Any]):
    """The dbt that a run starts. `DbtCliResource` of dagster-dbt says the same, and may stand in its place."""

    dbt_executable: str = Field(description="Path of the dbt that runs: this environment's own.")
    global_config_flags: list[str] = Field(default=[], description="Global flags of dbt, before its command.")


class LocalStorageResource(dg.ConfigurableResource[Any]):
    """Tables in a folder of this machine."""

    path: str | None = Field(None, description="Warehouse folder; FLOE_HOME/warehouse when absent.")

    def plugin(self) -> PluginRef:
        """Return the settings as the artifact has them, secrets resolved."""
        return PluginRef(type="local", config={"path": self.path} if self.path else {})


class S3Resource(dg.ConfigurableResource[Any]):
    """Tables in an S3-compatible object store."""

    endpoint: str | None = Field(None, description="Endpoint; the provider's own when absent.")
    bucket: str = Field(description="Bucket name.")
    region: str = Field("us-east-1", description="Region.")
    path_style_access: bool = Field(False, description="Address buckets by path instead of host name.")
    access_key_id: str | None = Field(
        None, description="Access key id; absent where the catalog gives credentials."
    )
    secret_access_key: str | None = Field(
        None,
        description="Secret access key, as the reference ${NAME}; absent where the catalog gives credentials.",
        repr=False,
    )
    timeout_seconds: float = Field(60.0, description="How long one answer of the storage may take.")

    def plugin(self) -> PluginRef:
        """Return the settings as the artifact has them, secrets resolved."""
        return PluginRef(type="s3", config=present(self))


class MinioResource(S3Resource):
    """Tables in MinIO."""

    path_style_access: bool = Field(True, description="Address buckets by path instead of host name.")

    def plugin(self) -> PluginRef:
        """Return the settings as the artifact has them, secrets resolved."""
        return PluginRef(type="minio", config=present(self))


StorageResource = LocalStorageResource | S3Resource


class CatalogResource(dg.ConfigurableResource[Any]):
    """An Iceberg catalog; each type has its settings as fields (`CatalogType.resource`)."""

    def plugin(self) -> PluginRef:
        """Return the settings as the artifact has them, secrets as references."""
        raise NotImplementedError

    def open(self, storage: StorageResource, home: FloeHome) -> "Catalog":
        """Open the catalog; see `open_catalog`."""
        return open_catalog(self.plugin(), storage.plugin(), home=home)

    @classmethod
    def of_plugin(cls, plugin: PluginRef) -> Self:
        """Return the resource for what an artifact has; `${NAME}` stands for a secret.

        Args:
            plugin: `plugins.catalog`.
        """
        return cls(**configured(plugin.config or {}))


class AnyCatalogResource(CatalogResource):
    """An Iceberg catalog of a type that has no resource of its own."""

    type: str = Field(description="Type of the catalog.")
    config: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the catalog, secrets as the reference ${NAME}."
    )

    def plugin(self) -> PluginRef:
        """Return the settings as the artifact has them, secrets as references."""
        return PluginRef(type=self.type, config=dict(self.config))

    @classmethod
    def of_plugin(cls, plugin: PluginRef) -> Self:
        """Return the resource for what an artifact has; see `CatalogResource.of_plugin`."""
        return cls(type=plugin.type, config=configured(plugin.config or {}))


STORAGE_RESOURCES: dict[str, type[Any]] = {
    "local": LocalStorageResource,
    "s3": S3Resource,
    "minio": MinioResource,
}


def build_resources(slug: str, plugins: ResolvedPlugins | None) -> dict[str, Any]:
    """Return catalog and storage of one product, by resource key.

    Args:
        slug: Of the product; several products fit into one location.
        plugins: From the compiled artifact.

    Raises:
        ValueError: A type that this version does not know.
    """
    catalog = (plugins.catalog if plugins else None) or PluginRef(type=DEFAULT_CATALOG_TYPE)
    storage = (plugins.storage if plugins else None) or PluginRef(type="local")
    for plugin, known in ((catalog, CATALOG_TYPES), (storage, STORAGE_RESOURCES)):
        if plugin.type not in known:
            raise ValueError(f"{plugin.type!r} is not known to this version; it knows: {', '.join(known)}")
    kind = CATALOG_TYPES[catalog.type]
    keys = dict(storage.config or {})
    if kind.gives_keys(catalog.config or {}):
        # The catalog gives them; a run does not even need to know others.
        keys.pop("access_key_id", None)
        keys.pop("secret_access_key", None)
    return {
        catalog_key(slug): resolve_name(kind.resource).of_plugin(catalog),
        storage_key(slug): STORAGE_RESOURCES[storage.type](**configured(keys)),
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


def present(resource: Any) -> dict[str, Any]:
    """Return the settings of a resource that are set."""
    return {
        name: value for name in type(resource).model_fields if (value := getattr(resource, name)) is not None
    }
