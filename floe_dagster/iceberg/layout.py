"""How a table is laid out: partition spec, sort order, properties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from floe_dagster.iceberg.errors import PublicationError
from floe_dagster.schemas.table_layout import PartitionField, SortField

if TYPE_CHECKING:
    from pyiceberg.partitioning import PartitionSpec
    from pyiceberg.schema import Schema
    from pyiceberg.table.metadata import TableMetadata
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

    names = _PartitionNames(schema)
    return PartitionSpec(
        *(
            IcebergPartitionField(
                source_id=entry.source_id,
                field_id=number,
                transform=entry.transform,
                name=names.free(entry),
            )
            for number, entry in enumerate(_wanted_entries(layout.partition_by or (), schema, table), 1000)
        )
    )


def initial_order(layout: TableLayout, schema: Schema, table: str) -> SortOrder:
    """Return the sort order of a new table.

    Raises:
        PublicationError: A column does not exist, or cannot be sorted by.
    """
    from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortOrder

    if not layout.sort_by:
        return UNSORTED_SORT_ORDER
    return SortOrder(*_sort_fields(layout.sort_by, schema, table))


@dataclass(frozen=True, slots=True)
class LayoutChange:
    """What brings a table to its layout.

    Args:
        updates: Of its metadata, to be applied after those of its schema.
        requirements: What they build on.
        changes: For people.
    """

    updates: tuple[Any, ...] = ()
    requirements: tuple[Any, ...] = ()
    changes: tuple[str, ...] = ()


def plan_layout(metadata: TableMetadata, schema: Schema, layout: TableLayout, table: str) -> LayoutChange:
    """Return what brings an existing table's spec, order and properties to the layout.

    Files that exist keep the spec that they were written with; new ones get the new one. What the layout does not state stays
    as it is, but for fields whose column is gone.

    Args:
        metadata: Of the table as it stands.
        schema: That it gets in the same commit.
        layout: What is asked for.
        table: For messages.

    Raises:
        PublicationError: A column does not exist, or cannot be transformed like this.
    """
    from pyiceberg.table import update

    changes: list[str] = []
    updates: list[Any] = []
    requirements: list[Any] = []
    spec = _changed_spec(metadata, schema, layout, table)
    if spec is not None:
        known = spec.spec_id in metadata.specs()
        updates += [] if known else [update.AddPartitionSpecUpdate(spec=spec)]
        updates.append(update.SetDefaultSpecUpdate(spec_id=spec.spec_id if known else -1))
        requirements += [
            update.AssertLastAssignedPartitionId(last_assigned_partition_id=metadata.last_partition_id),
            update.AssertDefaultSpecId(default_spec_id=metadata.default_spec_id),
        ]
        names = [field.name for field in spec.fields if str(field.transform) != "void"]
        changes.append(f"partitioned by {', '.join(names) or 'nothing'}{_gone(metadata, schema, layout)}")
    order = _changed_order(metadata, schema, layout, table)
    if order is not None:
        known = any(order.order_id == one.order_id for one in metadata.sort_orders)
        updates += [] if known else [update.AddSortOrderUpdate(sort_order=order)]
        # No order is always 0.
        number = order.order_id if known or not order.fields else -1
        updates.append(update.SetDefaultSortOrderUpdate(sort_order_id=number))
        requirements.append(
            update.AssertDefaultSortOrderId(default_sort_order_id=metadata.default_sort_order_id)
        )
        sources = [schema.find_column_name(field.source_id) or "" for field in order.fields]
        changes.append(f"sorted by {', '.join(sources) or 'nothing'}")
    wanted = {
        name: value for name, value in layout.properties.items() if metadata.properties.get(name) != value
    }
    if wanted:
        updates.append(update.SetPropertiesUpdate(updates=wanted))
        changes.append(f"properties {', '.join(sorted(wanted))}")
    return LayoutChange(tuple(updates), tuple(requirements), tuple(changes))


def with_names_of(layout: TableLayout, names: Sequence[str]) -> TableLayout:
    """Return a layout that writes columns as the model does: DuckDB and Trino know `Id` as `id`, too.

    Args:
        layout: As the product spec has it.
        names: Of the model's columns.
    """
    return replace(
        layout,
        partition_by=layout.partition_by
        and tuple(replace(entry, column=name_as_in(entry.column, names)) for entry in layout.partition_by),
        sort_by=layout.sort_by
        and tuple(replace(entry, column=name_as_in(entry.column, names)) for entry in layout.sort_by),
    )


def name_as_in(name: str, names: Sequence[str]) -> str:
    """Return a column's name as it stands among others, where it differs in case alone."""
    if name in names:
        return name
    return next((other for other in names if other.lower() == name.lower()), name)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A partition field before it has its place in a spec.

    Args:
        source_id: Field id of its column.
        transform: Iceberg's.
        name: That it shall have.
    """

    source_id: int
    transform: Any
    name: str

    @property
    def key(self) -> tuple[int, str]:
        return self.source_id, str(self.transform)


class _PartitionNames:
    """Gives partition fields names that no column and no other field has.

    Iceberg refuses a field with a column's name, unless it holds that column's own values.

    Args:
        schema: Of the table.
    """

    def __init__(self, schema: Schema) -> None:
        self._columns = {field.name.lower(): field.field_id for field in schema.fields}
        self._taken: set[str] = set()

    def is_free(self, entry: _Entry) -> bool:
        column = self._columns.get(entry.name.lower())
        is_own = column == entry.source_id and str(entry.transform) == "identity"
        return entry.name.lower() not in self._taken and (column is None or is_own)

    def free(self, entry: _Entry) -> str:
        number, name = 1, entry.name
        while not self.is_free(replace(entry, name=name)):
            number += 1
            name = f"{entry.name}_partition" + (f"_{number}" if number > 2 else "")
        self._taken.add(name.lower())
        return name


def _wanted_entries(wanted: Sequence[PartitionField], schema: Schema, table: str) -> list[_Entry]:
    entries: dict[tuple[int, str], _Entry] = {}
    for field_wanted in wanted:
        source = _column(schema, field_wanted.column, table, "partition_by")
        transform = _transform(field_wanted)
        _check_transform(transform, source, field_wanted, table)
        entry = _Entry(source.field_id, transform, field_wanted.name)
        entries.setdefault(entry.key, entry)
    return list(entries.values())


def _changed_spec(
    metadata: TableMetadata, schema: Schema, layout: TableLayout, table: str
) -> PartitionSpec | None:
    """Return the spec that a table gets; None where its own stays."""
    from pyiceberg.partitioning import PartitionField as IcebergPartitionField
    from pyiceberg.partitioning import PartitionSpec
    from pyiceberg.transforms import VoidTransform

    current = metadata.spec()
    ids = _ids(schema)
    now = [
        _Entry(field.source_id, field.transform, field.name)
        for field in current.fields
        if str(field.transform) != "void"
    ]
    staying = [entry for entry in now if entry.source_id in ids]
    wanted = staying if layout.partition_by is None else _wanted_entries(layout.partition_by, schema, table)
    names = _PartitionNames(schema)
    if {entry.key for entry in now} == {entry.key for entry in wanted} and all(
        names.is_free(entry) for entry in now
    ):
        return None
    known = {
        (field.source_id, str(field.transform)): field
        for spec in metadata.partition_specs
        for field in spec.fields
    }
    fields: list[Any] = []
    last = metadata.last_partition_id or 999
    if metadata.format_version == 1:
        # There a field keeps its place in every spec, so one that goes holds nothing from then on.
        present = {entry.key for entry in wanted}
        for one in current.fields:
            if (one.source_id, str(one.transform)) not in present:
                # Its name may be wanted again.
                free = one.name if str(one.transform) == "void" else f"{one.name}_{one.field_id}"
                one = one.model_copy(update={"transform": VoidTransform(), "name": free})
            fields.append(one)
            names.free(_Entry(one.source_id, one.transform, one.name))
        wanted = [entry for entry in wanted if entry.key not in {each.key for each in now}]
    for entry in wanted:
        before = known.get(entry.key) if metadata.format_version > 1 else None
        if before is None:
            last += 1
        fields.append(
            IcebergPartitionField(
                source_id=entry.source_id,
                field_id=before.field_id if before else last,
                transform=entry.transform,
                name=names.free(replace(entry, name=before.name) if before else entry),
            )
        )
    same = next((spec for spec in metadata.partition_specs if list(spec.fields) == fields), None)
    number = same.spec_id if same else max(spec.spec_id for spec in metadata.partition_specs) + 1
    return PartitionSpec(*fields, spec_id=number)


def _ids(schema: Schema) -> set[int]:
    """Return the ids of all fields, nested ones included."""
    from pyiceberg.schema import index_by_id

    return set(index_by_id(schema))


def _gone(metadata: TableMetadata, schema: Schema, layout: TableLayout) -> str:
    """Return which columns are gone that a table was partitioned by, where nobody asked for another spec."""
    if layout.partition_by is not None:
        return ""
    ids = _ids(schema)
    before = metadata.schema()
    names = [
        before.find_column_name(field.source_id)
        for field in metadata.spec().fields
        if field.source_id not in ids
    ]
    return f": {', '.join(name for name in names if name)} is gone" if any(names) else ""


def _changed_order(
    metadata: TableMetadata, schema: Schema, layout: TableLayout, table: str
) -> SortOrder | None:
    """Return the sort order that a table gets; None where its own stays."""
    from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortOrder

    orders = metadata.sort_orders
    current = next((one for one in orders if one.order_id == metadata.default_sort_order_id), None)
    now = list(current.fields) if current else []
    if layout.sort_by is None:
        ids = _ids(schema)
        fields = [field for field in now if field.source_id in ids]
    else:
        fields = _sort_fields(layout.sort_by, schema, table)
    if fields == now:
        return None
    if not fields:
        return UNSORTED_SORT_ORDER
    same = next((one for one in orders if list(one.fields) == fields), None)
    return same or SortOrder(*fields, order_id=max((one.order_id for one in orders), default=0) + 1)


def _sort_fields(wanted: Sequence[SortField], schema: Schema, table: str) -> list[Any]:
    from pyiceberg.table.sorting import SortField as IcebergSortField
    from pyiceberg.transforms import IdentityTransform

    fields = []
    for entry in wanted:
        source = _column(schema, entry.column, table, "sort_by")
        if not source.field_type.is_primitive:
            raise PublicationError(
                f"{table}: column {entry.column!r} is {source.field_type}, which Iceberg cannot sort by; change "
                "transforms[].table.sort_by in floe.yaml"
            )
        fields.append(
            IcebergSortField(
                source_id=source.field_id,
                transform=IdentityTransform(),
                direction=_direction(entry),
                null_order=_null_order(entry),
            )
        )
    return fields


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
        f"{table}: transforms[].table.{field_name} names the column {name!r}, which the model does not have; it has: {near}. "
        f"Take it out of {field_name} in floe.yaml, or select it in the model"
    )


def _direction(wanted: SortField) -> Any:
    from pyiceberg.table.sorting import SortDirection

    return SortDirection.DESC if wanted.descending else SortDirection.ASC


def _null_order(wanted: SortField) -> Any:
    from pyiceberg.table.sorting import NullOrder

    return NullOrder.NULLS_FIRST if wanted.nulls_first else NullOrder.NULLS_LAST
