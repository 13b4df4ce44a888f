"""How a table is laid out: partition spec, sort order, properties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from floe_dagster.iceberg.errors import PublicationError
from floe_dagster.schemas.table_layout import PartitionField, SortField

if TYPE_CHECKING:
    from pyiceberg.partitioning import PartitionSpec
    from pyiceberg.schema import Schema
    from pyiceberg.table import Transaction
    from pyiceberg.table.sorting import SortOrder

DEFAULT_PROPERTIES = {"write.parquet.compression-codec": "zstd"}


@dataclass(frozen=True, slots=True)
class TableLayout:
    """What `transforms[].table` asks of a table; None leaves what the table has.

    Args:
        partition_by: Partition fields; an empty tuple makes it unpartitioned.
        sort_by: Sort fields.
        properties: Iceberg table properties.
    """

    partition_by: tuple[PartitionField, ...] | None = None
    sort_by: tuple[SortField, ...] | None = None
    properties: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(
        cls,
        partition_by: Sequence[str] | None = None,
        sort_by: Sequence[str] | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> TableLayout:
        """Read a layout as the product spec has it.

        Raises:
            ValueError: A field cannot be read.
        """
        return cls(
            None if partition_by is None else tuple(PartitionField.parse(text) for text in partition_by),
            None if sort_by is None else tuple(SortField.parse(text) for text in sort_by),
            dict(properties or {}),
        )


def initial_spec(layout: TableLayout, schema: Schema, table: str) -> PartitionSpec:
    """Return the partition spec of a new table.

    Raises:
        PublicationError: A column does not exist, or cannot be transformed like this.
    """
    from pyiceberg.partitioning import PartitionField as IcebergPartitionField
    from pyiceberg.partitioning import PartitionSpec

    fields = []
    for number, wanted in enumerate(layout.partition_by or (), 1000):
        source = _column(schema, wanted.column, table, "partition_by")
        transform = _transform(wanted)
        _check_transform(transform, source, wanted, table)
        fields.append(
            IcebergPartitionField(
                source_id=source.field_id, field_id=number, transform=transform, name=wanted.name
            )
        )
    return PartitionSpec(*fields)


def initial_order(layout: TableLayout, schema: Schema, table: str) -> SortOrder:
    """Return the sort order of a new table.

    Raises:
        PublicationError: A column does not exist.
    """
    from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortOrder
    from pyiceberg.table.sorting import SortField as IcebergSortField
    from pyiceberg.transforms import IdentityTransform

    if not layout.sort_by:
        return UNSORTED_SORT_ORDER
    return SortOrder(
        *(
            IcebergSortField(
                source_id=_column(schema, wanted.column, table, "sort_by").field_id,
                transform=IdentityTransform(),
                direction=_direction(wanted),
                null_order=_null_order(wanted),
            )
            for wanted in layout.sort_by
        )
    )


def apply_layout(transaction: Transaction, layout: TableLayout, table: str) -> list[str]:
    """Bring an existing table's spec, order and properties to the layout; returns what changed, for people.

    Files that exist keep the spec that they were written with; new ones get the new one.

    Raises:
        PublicationError: A column does not exist, or cannot be transformed like this.
    """
    changes: list[str] = []
    schema = transaction.table_metadata.schema()
    if layout.partition_by is not None:
        changes += _apply_spec(transaction, layout.partition_by, schema, table)
    if layout.sort_by is not None:
        changes += _apply_order(transaction, layout, schema, table)
    now = transaction.table_metadata.properties
    wanted = {name: value for name, value in layout.properties.items() if now.get(name) != value}
    if wanted:
        transaction.set_properties(wanted)
        changes.append(f"properties {', '.join(sorted(wanted))}")
    return changes


def _apply_spec(
    transaction: Transaction, wanted: Sequence[PartitionField], schema: Schema, table: str
) -> list[str]:
    current = transaction.table_metadata.spec()
    now = [(schema.find_column_name(f.source_id), str(f.transform), f.name) for f in current.fields]
    now = [entry for entry in now if entry[1] != "void"]
    then = []
    for entry in wanted:
        source = _column(schema, entry.column, table, "partition_by")
        _check_transform(_transform(entry), source, entry, table)
        then.append((entry.column, str(_transform(entry)), entry.name))
    if [entry[:2] for entry in now] == [entry[:2] for entry in then]:
        return []
    kept = {entry[:2] for entry in now} & {entry[:2] for entry in then}
    with transaction.update_spec() as update:
        for column, transform, name in now:
            if (column, transform) not in kept:
                update.remove_field(name)
        for entry, (column, transform, name) in zip(wanted, then, strict=True):
            if (column, transform) not in kept:
                update.add_field(entry.column, _transform(entry), name)
    return [f"partitioned by {', '.join(name for _c, _t, name in then) or 'nothing'}"]


def _apply_order(transaction: Transaction, layout: TableLayout, schema: Schema, table: str) -> list[str]:
    metadata = transaction.table_metadata
    wanted = initial_order(layout, schema, table)
    current = next((o for o in metadata.sort_orders if o.order_id == metadata.default_sort_order_id), None)
    if (list(current.fields) if current else []) == list(wanted.fields):
        return []
    with transaction.update_sort_order() as update:
        for entry in layout.sort_by or ():
            add = update.desc if entry.descending else update.asc
            from pyiceberg.transforms import IdentityTransform

            add(entry.column, IdentityTransform(), _null_order(entry))
    return [f"sorted by {', '.join(entry.column for entry in layout.sort_by or ()) or 'nothing'}"]


def _transform(wanted: PartitionField) -> Any:
    from pyiceberg import transforms

    if wanted.transform == "bucket":
        return transforms.BucketTransform(wanted.width or 1)
    if wanted.transform == "truncate":
        return transforms.TruncateTransform(wanted.width or 1)
    return {
        "identity": transforms.IdentityTransform,
        "year": transforms.YearTransform,
        "month": transforms.MonthTransform,
        "day": transforms.DayTransform,
        "hour": transforms.HourTransform,
    }[wanted.transform]()


def _check_transform(transform: Any, source: Any, wanted: PartitionField, table: str) -> None:
    if not transform.can_transform(source.field_type):
        raise PublicationError(
            f"{table}: column {wanted.column!r} is {source.field_type}, which {wanted.transform} cannot partition; "
            "change transforms[].table.partition_by in floe.yaml"
        )


def _column(schema: Schema, name: str, table: str, field_name: str) -> Any:
    for column in schema.fields:
        if column.name == name:
            return column
    near = ", ".join(column.name for column in schema.fields)
    raise PublicationError(
        f"{table}: transforms[].table.{field_name} names the column {name!r}, which the model does not have; it has: {near}"
    )


def _direction(wanted: SortField) -> Any:
    from pyiceberg.table.sorting import SortDirection

    return SortDirection.DESC if wanted.descending else SortDirection.ASC


def _null_order(wanted: SortField) -> Any:
    from pyiceberg.table.sorting import NullOrder

    return NullOrder.NULLS_FIRST if wanted.nulls_first else NullOrder.NULLS_LAST
