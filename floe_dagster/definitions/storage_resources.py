"""The Dagster resources of the storage types; their modules in `schemas.storage_types` name them."""

from typing import ClassVar

from pydantic import Field

from floe_dagster.definitions.resources import StorageResource
from floe_dagster.schemas.storage_types.local import LOCAL
from floe_dagster.schemas.storage_types.minio import MINIO
from floe_dagster.schemas.storage_types.s3 import S3


class LocalStorageResource(StorageResource):
    """Tables in a folder of this machine."""

    plugin_type: ClassVar[str] = LOCAL.name

    path: str | None = Field(None, description="Warehouse folder; FLOE_HOME/warehouse when absent.")


class S3Resource(StorageResource):
    """Tables in an S3-compatible object store."""

    plugin_type: ClassVar[str] = S3.name

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


class MinioResource(S3Resource):
    """Tables in MinIO."""

    plugin_type: ClassVar[str] = MINIO.name

    path_style_access: bool = Field(True, description="Address buckets by path instead of host name.")
