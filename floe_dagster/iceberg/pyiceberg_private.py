"""What of PyIceberg is not public and needed all the same: each once, with the reason.

After an upgrade of PyIceberg `tests/contract/test_private_names.py` says which name is gone. What `rest.py` and `overwriting.py`
override stays there, and the same test knows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.catalog.rest import Endpoint, RestCatalog
    from pyiceberg.io import FileIO
    from pyiceberg.io.pyarrow import ArrowScan
    from pyiceberg.table import FileScanTask, Table, Transaction
    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.update import TableRequirement, TableUpdate
    from pyiceberg.table.update.snapshot import UpdateSnapshot, _SnapshotProducer
    from pyiceberg.types import IcebergType


def table_of(transaction: Transaction) -> Table:
    """Return the table that a transaction changes; of one that makes a table, the staged one, which is nowhere else."""
    return transaction._table


def with_metadata_kept(transaction: Transaction) -> Transaction:
    """Return the transaction; its metadata is made anew after a change of it alone.

    PyIceberg makes it each time that somebody asks, two dozen times per commit, and each time copies all that the table has:
    with its snapshots it takes a third of a publication, and more with each snapshot.
    """
    transaction.__class__ = _keeping(type(transaction))  # type: ignore[arg-type]  # a class can be hashed
    return transaction


@cache
def _keeping(kind: type[Transaction]) -> type[Transaction]:
    class Keeping(kind):  # type: ignore[valid-type, misc]  # a transaction, or one that makes a table
        _kept: tuple[TableMetadata, tuple[TableUpdate, ...], TableMetadata] | None = None

        @property
        def table_metadata(self) -> TableMetadata:
            kept = self._kept
            # Both are replaced, never changed.
            if kept is None or kept[0] is not self._table.metadata or kept[1] is not self._updates:
                self._kept = kept = (self._table.metadata, self._updates, super().table_metadata)
            return kept[2]

    return Keeping


def apply_updates(
    transaction: Transaction, updates: Sequence[TableUpdate], requirements: Sequence[TableRequirement]
) -> None:
    """Apply changes of schema, partition spec and sort order to a transaction, all at once.

    The public builders apply one after the other, and what lies between two of them may be no table: a partition field without
    its column. They also hold a new column against the names of partition fields that the table had long ago.
    """
    if updates:
        transaction._apply(tuple(updates), tuple(requirements))


def take_producers(transaction: Transaction) -> Sequence[_SnapshotProducer[Any]]:
    """Return what would write a transaction's snapshots again after a conflict, and take it from the transaction.

    PyIceberg would commit again by itself, with the removed files of the plan it was given and somebody else's new rows.
    """
    producers = tuple(transaction._snapshot_producers)
    transaction._snapshot_producers = []
    return producers


def remove_uncommitted(producer: _SnapshotProducer[Any]) -> None:
    """Remove the manifests that a producer has written, where nothing of it was committed."""
    producer._clean_all_uncommitted()


def read_batches(scan: ArrowScan, io: FileIO, tasks: Iterable[FileScanTask]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of data files, deletes applied: the public reader holds whole files in memory."""
    from pyiceberg.io.pyarrow import _read_all_delete_files

    listed = list(tasks)
    return scan._record_batches_from_scan_tasks_and_deletes(listed, _read_all_delete_files(io, listed))


def partition_value(iceberg: IcebergType, value: Any) -> Any:
    """Return a value as a partition record holds it; the public way needs a whole record of Arrow."""
    from pyiceberg.partitioning import _to_partition_representation

    return _to_partition_representation(iceberg, value)


def overwrite_arguments(update: UpdateSnapshot) -> dict[str, Any]:
    """Return what `update.overwrite()` makes its producer from, besides the operation."""
    return {
        "transaction": update._transaction,
        "io": update._io,
        "branch": update._branch,
        "snapshot_properties": update._snapshot_properties,
    }


def supported_endpoints(catalog: RestCatalog) -> set[Endpoint]:
    """Return what the server says that it offers; publicly, only a refused request tells."""
    return catalog._supported_endpoints
