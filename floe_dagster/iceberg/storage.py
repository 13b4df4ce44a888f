"""Where the warehouse of a storage lies, and how its files are opened; which types there are stands in `schemas.storage_types`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from urllib.parse import urlparse

from floe_dagster.home import FloeHome
from floe_dagster.iceberg.errors import NotUsableError
from floe_dagster.schemas.storage_types import STORAGE_TYPES


def local_warehouse(config: Mapping[str, Any], home: FloeHome) -> str:
    """Return the warehouse of a folder, as PyIceberg spells it: nothing is escaped.

    Raises:
        NotUsableError: The path cannot be spelt like this.
    """
    path = str(Path(config.get("path") or home.warehouse_dir).absolute())
    if any(sign in path for sign in "?#"):
        raise NotUsableError(
            f"the warehouse folder {path} has a ? or # in its name, which no location can have"
        )
    return f"file://{path}"


def local_folder(location: str) -> Path | None:
    """Return the folder that a location of a warehouse or a table names, as PyIceberg reads it; None for any other storage.

    Args:
        location: A path or a URI; a percent sign is a percent sign.
    """
    address = urlparse(location)
    return Path(address.path) if location and address.scheme in ("", "file") else None


def s3_warehouse(config: Mapping[str, Any], home: FloeHome) -> str:
    """Return the warehouse of a bucket, as a URI."""
    return f"s3://{config['bucket']}/warehouse"


def s3_file_io(config: Mapping[str, Any], *, vended: bool) -> dict[str, str]:
    """Return PyIceberg's properties for an S3-compatible store.

    Args:
        config: Settings of `plugins.storage`, secrets resolved.
        vended: The catalog gives the keys, so none are named here.
    """
    properties = {
        "s3.region": str(config.get("region") or "us-east-1"),
        "s3.connect-timeout": "10",
        "s3.request-timeout": str(config.get("timeout_seconds") or 60),
        "s3.force-virtual-addressing": str(not config.get("path_style_access", False)).lower(),
    }
    if config.get("endpoint"):
        properties["s3.endpoint"] = str(config["endpoint"])
    if not vended and config.get("access_key_id"):
        properties["s3.access-key-id"] = str(config["access_key_id"])
        properties["s3.secret-access-key"] = str(config.get("secret_access_key") or "")
    return properties


def local_file_io(config: Mapping[str, Any], *, vended: bool) -> dict[str, str]:
    """Return PyIceberg's properties for a folder: none."""
    return {}


class Storage:
    """What one storage type does.

    Args:
        warehouse: Its warehouse, as a URI, where the catalog names none.
        file_io: PyIceberg's properties.
    """

    def __init__(
        self,
        warehouse: Callable[[Mapping[str, Any], FloeHome], str],
        file_io: Callable[..., dict[str, str]],
    ) -> None:
        self.warehouse = warehouse
        self.file_io = file_io


FOLDER = Storage(local_warehouse, local_file_io)
BUCKET = Storage(s3_warehouse, s3_file_io)


def storage_of(name: str) -> Storage:
    """Return what a storage type does.

    Args:
        name: `plugins.storage.type`.

    Raises:
        NotUsableError: This version does not know it.
    """
    kind = STORAGE_TYPES.get(name)
    if kind is None:
        raise NotUsableError(
            f"storage {name!r} cannot be written; this version writes: {', '.join(STORAGE_TYPES)}"
        )
    found: Storage = resolve_name(kind.files)
    return found
