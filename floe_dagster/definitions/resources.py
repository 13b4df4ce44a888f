"""dbt, catalog and storage as Dagster resources, built from the compiled artifact of a product.

They are configuration alone, visible in Dagster's UI. A secret is the reference `${NAME}` until the catalog is opened:
`EnvVar` would be read where a run is planned, so the code server would need every secret of its runs. Who builds such a
resource by hand may use `EnvVar` all the same.
"""

from typing import Any

import dagster as dg
from pydantic import Field

from floe_dagster.credentials import environment_name
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import is_vended, open_catalog
from floe_dagster.schemas.artifacts import PluginRef, ResolvedPlugins
from floe_dagster.schemas.plugins import DEFAULT_SCOPE


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
        return PluginRef(type="s3", config=_present(self))


class MinioResource(S3Resource):
    """Tables in MinIO."""

    path_style_access: bool = Field(True, description="Address buckets by path instead of host name.")

    def plugin(self) -> PluginRef:
        """Return the settings as the artifact has them, secrets resolved."""
        return PluginRef(type="minio", config=_present(self))


StorageResource = LocalStorageResource | S3Resource


class SqlCatalogResource(dg.ConfigurableResource[Any]):
    """An Iceberg catalog in a database; without settings the embedded one, a SQLite file under FLOE_HOME."""

    uri: str | None = Field(
        None, description="SQLAlchemy URI; SQLite under FLOE_HOME when absent.", repr=False
    )
    warehouse: str | None = Field(None, description="Warehouse location; that of the storage when absent.")

    def open(self, storage: StorageResource, home: FloeHome) -> Any:
        """Open the catalog; see `open_catalog`."""
        return open_catalog(PluginRef(type="sql", config=_present(self)), storage.plugin(), home=home)


class IcebergRestResource(dg.ConfigurableResource[Any]):
    """Any catalog that speaks the Iceberg REST protocol."""

    uri: str = Field(description="URI of the Iceberg REST catalog.")
    warehouse: str = Field(description="Warehouse (catalog) name.")
    client_id: str | None = Field(None, description="OAuth2 client id.")
    client_secret: str | None = Field(
        None, description="OAuth2 client secret, as the reference ${NAME}.", repr=False
    )
    scope: str = Field(DEFAULT_SCOPE, description="OAuth2 scope.")
    token_url: str | None = Field(None, description="Token endpoint; the catalog's own when absent.")
    token: str | None = Field(None, description="Bearer token, as the reference ${NAME}.", repr=False)
    credential_vending: bool = Field(True, description="Take storage credentials from the catalog.")
    timeout_seconds: float = Field(60.0, description="How long one answer of the catalog may take.")

    def open(self, storage: StorageResource, home: FloeHome) -> Any:
        """Open the catalog; see `open_catalog`."""
        config = _present(self)
        oauth2 = {
            name: config.pop(name)
            for name in ("client_id", "client_secret", "scope", "token_url")
            if name in config
        }
        if "client_id" in oauth2:
            config["oauth2"] = oauth2
        return open_catalog(PluginRef(type="rest", config=config), storage.plugin(), home=home)


class PolarisResource(IcebergRestResource):
    """An Apache Polaris catalog."""

    uri: str = Field(description="URI of Polaris' catalog API, ending in /api/catalog.")
    warehouse: str = Field(description="Name of the Polaris catalog.")


CatalogResource = SqlCatalogResource | IcebergRestResource

STORAGE_RESOURCES: dict[str, type[Any]] = {
    "local": LocalStorageResource,
    "s3": S3Resource,
    "minio": MinioResource,
}
CATALOG_RESOURCES: dict[str, type[Any]] = {
    "sql": SqlCatalogResource,
    "rest": IcebergRestResource,
    "polaris": PolarisResource,
}


def build_resources(slug: str, plugins: ResolvedPlugins | None) -> dict[str, Any]:
    """Return catalog and storage of one product, by resource key.

    Args:
        slug: Of the product; several products fit into one location.
        plugins: From the compiled artifact.

    Raises:
        ValueError: A type that this version does not know.
    """
    catalog = (plugins.catalog if plugins else None) or PluginRef(type="sql")
    storage = (plugins.storage if plugins else None) or PluginRef(type="local")
    for plugin, known in ((catalog, CATALOG_RESOURCES), (storage, STORAGE_RESOURCES)):
        if plugin.type not in known:
            raise ValueError(f"{plugin.type!r} is not known to this version; it knows: {', '.join(known)}")
    settings = dict(catalog.config or {})
    settings |= settings.pop("oauth2", None) or {}
    keys = dict(storage.config or {})
    if is_vended(catalog.type, catalog.config or {}):
        # The catalog gives them; a run does not even need to know others.
        keys.pop("access_key_id", None)
        keys.pop("secret_access_key", None)
    return {
        catalog_key(slug): CATALOG_RESOURCES[catalog.type](**_configured(settings)),
        storage_key(slug): STORAGE_RESOURCES[storage.type](**_configured(keys)),
    }


def catalog_key(slug: str) -> str:
    """Return the resource key of a product's catalog."""
    return f"{slug}_catalog"


def storage_key(slug: str) -> str:
    """Return the resource key of a product's storage."""
    return f"{slug}_storage"


def _configured(settings: dict[str, Any]) -> dict[str, Any]:
    configured = {}
    for name, value in settings.items():
        variable = environment_name(value)
        configured[name] = f"${{{variable}}}" if variable else value
    return configured


def _present(resource: Any) -> dict[str, Any]:
    return {
        name: value for name in type(resource).model_fields if (value := getattr(resource, name)) is not None
    }
