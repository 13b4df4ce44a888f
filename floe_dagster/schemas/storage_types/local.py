"""A folder of this machine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from floe_dagster.schemas.base import Section
from floe_dagster.schemas.storage_types.storage_type import StorageType


class LocalStorageConfig(Section):
    path: str | None = Field(None, description="Warehouse folder; FLOE_HOME/warehouse when absent.")


class LocalStorage(Section):
    type: Literal["local"] = Field(description="Storage.")
    version: str | None = Field(None, description="Version the platform asks for; informative.")
    config: LocalStorageConfig = Field(
        default_factory=LocalStorageConfig, description="Settings of the storage."
    )


LOCAL = StorageType(
    name="local",
    title="a folder",
    plugin=LocalStorage,
    files="floe_dagster.iceberg.storage:FOLDER",
    resource="floe_dagster.definitions.storage_resources:LocalStorageResource",
)
