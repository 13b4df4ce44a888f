"""Snapshots that replace data files, without the manifests that hold none any more.

PyIceberg carries a manifest that only names removed files from snapshot to snapshot, for ever; each later publication
and each reader would read one more of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _OverwriteFiles

from floe_dagster.iceberg.pyiceberg_private import overwrite_arguments

if TYPE_CHECKING:
    from pyiceberg.manifest import ManifestFile
    from pyiceberg.table.update.snapshot import UpdateSnapshot


class LiveOverwrite(_OverwriteFiles):
    """Replaces files; of the manifests before it, those with files in them are kept."""

    def _existing_manifests(self) -> list[ManifestFile]:
        return [
            manifest
            for manifest in super()._existing_manifests()
            if manifest.has_added_files() or manifest.has_existing_files()
        ]


def overwrite(update: UpdateSnapshot) -> LiveOverwrite:
    """Return what `update.overwrite()` does, without dead manifests."""
    arguments = overwrite_arguments(update)
    metadata = arguments["transaction"].table_metadata
    is_first = metadata.snapshot_by_name(name=arguments["branch"]) is None
    return LiveOverwrite(operation=Operation.APPEND if is_first else Operation.OVERWRITE, **arguments)
