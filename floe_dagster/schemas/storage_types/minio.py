"""MinIO, whose bucket and users `platform bootstrap` makes where it is told who may."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from floe_dagster.schemas.addresses import Url
from floe_dagster.schemas.base import Section
from floe_dagster.schemas.storage_types.s3 import S3StorageConfig
from floe_dagster.schemas.storage_types.storage_type import StorageType


class MinioStorageConfig(S3StorageConfig):
    endpoint: Url = Field(description="Endpoint of MinIO.")
    path_style_access: bool = Field(True, description="Address buckets by path instead of host name.")


class MinioStorage(Section):
    type: Literal["minio"] = Field(description="Storage.")
    version: str | None = Field(None, description="Version the platform asks for; informative.")
    config: MinioStorageConfig = Field(description="Settings of the storage.")


MINIO = StorageType(
    name="minio",
    title="MinIO",
    plugin=MinioStorage,
    files="floe_dagster.iceberg.storage:BUCKET",
    resource="floe_dagster.definitions.storage_resources:MinioResource",
    is_shared=True,
    root=("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"),
)
