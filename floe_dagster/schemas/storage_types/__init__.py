"""Types of storage for tables. Another type is one more module, and its line in `STORAGE_TYPES` and `Storage`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from floe_dagster.schemas.storage_types.local import LOCAL, LocalStorage
from floe_dagster.schemas.storage_types.minio import MINIO, MinioStorage
from floe_dagster.schemas.storage_types.s3 import S3, S3Storage
from floe_dagster.schemas.storage_types.storage_type import StorageType

STORAGE_TYPES: dict[str, StorageType] = {kind.name: kind for kind in (LOCAL, S3, MINIO)}
"""By `plugins.storage.type`."""
DEFAULT_STORAGE_TYPE = LOCAL.name
"""Where a manifest says nothing; also that of artifacts that are older than plugins."""

Storage = Annotated[LocalStorage | S3Storage | MinioStorage, Field(discriminator="type")]


def shared_storage_types() -> list[str]:
    """Return the types of storage that other machines and engines reach, too, by name."""
    return sorted(name for name, kind in STORAGE_TYPES.items() if kind.is_shared)
