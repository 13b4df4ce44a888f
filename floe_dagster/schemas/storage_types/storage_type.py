"""What the rest of the package needs to know of a storage type."""

from __future__ import annotations

from dataclasses import dataclass

from floe_dagster.schemas.base import Section


@dataclass(frozen=True, slots=True)
class StorageType:
    """A type of storage for tables: one module of this package, listed in `STORAGE_TYPES`.

    Nothing else in floe-dagster asks for a storage type by its name. What needs PyIceberg or Dagster is named as
    `module:attribute` and imported when it is used.

    Args:
        name: `plugins.storage.type`.
        title: Its name for people.
        plugin: Model of `plugins.storage` for this type.
        files: An `iceberg.storage.Storage`: where its warehouse lies, and how PyIceberg opens its files.
        resource: Class of the Dagster resource, a `definitions.resources.StorageResource`.
        is_shared: It is a service with a bucket, as `platform.object_store` asks it, which other machines and engines outside of
            this process reach, too; else it lies on this machine and is always ready.
        root: Environment variables with the user and the password of who may make the bucket and its users; None where nobody
            makes them for us.
    """

    name: str
    title: str
    plugin: type[Section]
    files: str
    resource: str
    is_shared: bool = False
    root: tuple[str, str] | None = None
