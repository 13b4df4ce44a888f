"""An S3-compatible object store."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from floe_dagster.schemas.addresses import Url
from floe_dagster.schemas.base import Seconds, Section
from floe_dagster.schemas.secrets import Secret
from floe_dagster.schemas.storage_types.storage_type import StorageType


class S3StorageConfig(Section):
    endpoint: Url | None = Field(None, description="Endpoint; the provider's own when absent.")
    bucket: str = Field(description="Bucket name.")
    region: str = Field("us-east-1", description="Region.")
    path_style_access: bool = Field(False, description="Address buckets by path instead of host name.")
    access_key_id: str | None = Field(
        None, description="Access key id or its reference; no secret by itself."
    )
    secret_access_key: Secret | None = Field(None, description="Secret access key, by reference.")
    timeout_seconds: Seconds = Field(60.0, description="How long one answer of the storage may take.")


class S3Storage(Section):
    type: Literal["s3"] = Field(description="Storage.")
    version: str | None = Field(None, description="Version the platform asks for; informative.")
    config: S3StorageConfig = Field(description="Settings of the storage.")


S3 = StorageType(
    name="s3",
    title="S3",
    plugin=S3Storage,
    files="floe_dagster.iceberg.storage:BUCKET",
    resource="floe_dagster.definitions.storage_resources:S3Resource",
    is_shared=True,
)
