"""Snapshots that replace data files, without the manifests that hold none any more.

PyIceberg carries a manifest that only names removed files from snapshot to snapshot, for ever; each later publication
and each reader would read one more of them.

Files that go may have been partitioned by a column that the same commit drops. Their partitions are known by the schema that
had the column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyiceberg.expressions import AlwaysTrue
from pyiceberg.manifest import write_manifest
from pyiceberg.schema import index_by_id
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _OverwriteFiles

from floe_dagster.iceberg.pyiceberg_private import overwrite_arguments

if TYPE_CHECKING:
    from pyiceberg.manifest import ManifestFile, ManifestWriter
    from pyiceberg.partitioning import PartitionSpec
    from pyiceberg.schema import Schema
    from pyiceberg.table.update.snapshot import UpdateSnapshot


class LiveOverwrite(_OverwriteFiles):
    """Replaces files; of the manifests before it, those with files in them are kept."""

    def _existing_manifests(self) -> list[ManifestFile]:
        return [
            manifest
            for manifest in super()._existing_manifests()
            if manifest.has_added_files() or manifest.has_existing_files()
        ]

    def _build_delete_files_partition_predicate(self) -> None:
        specs = {data_file.spec_id for data_file in self._deleted_data_files}
        if all(_is_whole(self.spec(spec_id), self.schema()) for spec_id in specs):
            super()._build_delete_files_partition_predicate()
        else:
            # It only spares a look into manifests, and says nothing of a column that is gone.
            self.delete_by_predicate(AlwaysTrue())

    def new_manifest_writer(self, spec: PartitionSpec) -> ManifestWriter:
        """Return a writer that knows the columns which the files are partitioned by."""
        metadata = self._transaction.table_metadata
        earlier = sorted(metadata.schemas, key=lambda schema: schema.schema_id, reverse=True)
        schema = next((one for one in (self.schema(), *earlier) if _is_whole(spec, one)), self.schema())
        return write_manifest(
            format_version=metadata.format_version,
            spec=spec,
            schema=schema,
            output_file=self.new_manifest_output(),
            snapshot_id=self._snapshot_id,
            avro_compression=self._compression,
        )


def _is_whole(spec: PartitionSpec, schema: Schema) -> bool:
    """Tell whether a schema has all columns that a spec takes its partitions from."""
    ids = index_by_id(schema)
    return all(field.source_id in ids for field in spec.fields)


def overwrite(update: UpdateSnapshot) -> LiveOverwrite:
    """Return what `update.overwrite()` does, without dead manifests."""
    arguments = overwrite_arguments(update)
    metadata = arguments["transaction"].table_metadata
    is_first = metadata.snapshot_by_name(name=arguments["branch"]) is None
    return LiveOverwrite(operation=Operation.APPEND if is_first else Operation.OVERWRITE, **arguments)
