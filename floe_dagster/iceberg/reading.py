"""Reads data files of a table in bounded memory, as the table will look."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from floe_dagster.iceberg.pyiceberg_private import read_batches

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.io import FileIO
    from pyiceberg.table import FileScanTask
    from pyiceberg.table.metadata import TableMetadata


def read_tasks(
    metadata: TableMetadata, io: FileIO, tasks: Iterable[FileScanTask], columns: Iterable[str] | None = None
) -> pa.RecordBatchReader:
    """Stream the rows of data files, deletes applied, in the current schema of `metadata`.

    PyIceberg's public reader holds whole files in memory; this one holds a batch.

    Args:
        metadata: Of the table; its schema may be newer than the files'.
        io: Of the table.
        tasks: From `plan_files`.
        columns: Names; all when left out.
    """
    import pyarrow as pa
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow

    schema: Any = metadata.schema()
    if columns is not None:
        schema = schema.select(*columns)
    scan = ArrowScan(metadata, io, schema, AlwaysTrue())
    target = schema_to_pyarrow(schema, include_field_ids=False)
    batches = read_batches(scan, io, tasks)
    first = next(batches, None)
    if first is None:
        return pa.RecordBatchReader.from_batches(target, iter(()))

    def conforming() -> Any:
        for batch in (first, *()):
            yield _as(batch, target)
        for batch in batches:
            yield _as(batch, target)

    return pa.RecordBatchReader.from_batches(target, conforming())


def _as(batch: Any, target: Any) -> Any:
    import pyarrow as pa

    return (
        batch
        if batch.schema.equals(target)
        else pa.RecordBatch.from_arrays(
            [
                batch.column(field.name).cast(field.type)
                if batch.schema.get_field_index(field.name) >= 0
                else pa.nulls(batch.num_rows, field.type)
                for field in target
            ],
            schema=target,
        )
    )
