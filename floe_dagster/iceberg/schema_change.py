"""Schema evolution of published tables: what Iceberg allows, and what governance accepts of it.

A column is known by its name, so what is written under one name keeps its field id. Engines such as DuckDB and Trino take `Id`
and `id` for the same column, so a name that changes in case alone is a rename, never a second column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from floe_dagster.iceberg.errors import PublicationError

if TYPE_CHECKING:
    from pyiceberg.schema import Schema
    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.types import IcebergType, NestedField


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """A table's schema as it will be.

    Args:
        schema: With the table's field ids; the id of the schema says nothing.
        changes: What differs from the table's schema, for people.
    """

    schema: Schema
    changes: tuple[str, ...]


def plan_schema(
    current: Schema,
    wanted: Schema,
    full_name: str,
    *,
    last_column_id: int | None = None,
    policy: str = "allow",
    keep_columns: bool = False,
) -> SchemaChange:
    """Return the schema that a table gets, so that what is published can be written to it.

    Args:
        current: Schema of the table.
        wanted: Schema of what is published; its ids say nothing.
        full_name: For messages.
        last_column_id: The largest field id that the table has ever used; that of `current` when None.
        policy: `governance.schema_evolution`: allow, additive (new columns only) or refuse.
        keep_columns: A column that is missing in `wanted` stays, because rows that have it stay.

    Raises:
        PublicationError: Iceberg cannot change a type like this, or the policy refuses.
    """
    from pyiceberg.schema import Schema

    last = current.highest_field_id if last_column_id is None else last_column_id
    # Where positions are promised as well, what is new comes last.
    merge = _Merge(full_name, last, keep_columns, follows_order=policy == "allow" and not keep_columns)
    fields = merge.struct(current.fields, wanted.fields, ())
    _check_policy(policy, merge.changes, full_name)
    required = {field.field_id for field in fields if field.required}
    identifying = [field_id for field_id in current.identifier_field_ids if field_id in required]
    _check_paths(fields, full_name)
    schema = Schema(*fields, schema_id=current.schema_id, identifier_field_ids=identifying)
    return SchemaChange(schema, tuple(merge.changes))


def check_evolution(
    current: Schema, wanted: Schema, full_name: str, *, policy: str = "allow", keep_columns: bool = False
) -> list[str]:
    """Return what differs between two schemas, for people; columns are known by their names.

    Args:
        current: Schema of the table.
        wanted: Schema of what is published.
        full_name: For messages.
        policy: `governance.schema_evolution`: allow, additive (new columns only) or refuse.
        keep_columns: A column that is missing in `wanted` stays, because rows that have it stay.

    Raises:
        PublicationError: Iceberg cannot change a type like this, or the policy refuses.
    """
    planned = plan_schema(current, wanted, full_name, policy=policy, keep_columns=keep_columns)
    return list(planned.changes)


def schema_updates(metadata: TableMetadata, schema: Schema) -> tuple[list[Any], list[Any]]:
    """Return the updates that make a schema the table's current one, and what they require; none where it is.

    Args:
        metadata: Of the table.
        schema: As `plan_schema` returns it.
    """
    from pyiceberg.table import update

    known = next((one.schema_id for one in metadata.schemas if _is_same(one, schema)), None)
    if known == metadata.current_schema_id:
        return [], []
    requirements = [
        update.AssertCurrentSchemaId(current_schema_id=metadata.current_schema_id),
        update.AssertLastAssignedFieldId(last_assigned_field_id=metadata.last_column_id),
    ]
    if known is not None:
        return [update.SetCurrentSchemaUpdate(schema_id=known)], requirements
    number = max(one.schema_id for one in metadata.schemas) + 1
    added = update.AddSchemaUpdate(schema=schema.model_copy(update={"schema_id": number}))  # type: ignore[call-arg]
    return [added, update.SetCurrentSchemaUpdate(schema_id=-1)], requirements


def check_names(fields: Sequence[NestedField], full_name: str) -> None:
    """Refuse names that readers cannot tell apart.

    Args:
        fields: Columns of what is published.
        full_name: For the message.

    Raises:
        PublicationError: Two columns differ in case alone, or one has the name of another one's nested field.
    """
    _check_case(fields, (), full_name)
    _check_paths(fields, full_name)


def _check_paths(fields: Sequence[NestedField], full_name: str) -> None:
    """Refuse a column whose name is the path of a nested field: Iceberg knows both by the same name."""
    from pyiceberg.schema import index_by_name
    from pyiceberg.types import StructType

    try:
        index_by_name(StructType(*fields))
    except ValueError as error:
        dotted = next((field.name for field in fields if "." in field.name and field.name in str(error)), "?")
        raise PublicationError(
            f"{full_name}: column {dotted!r} has the name of a nested field, and Iceberg cannot tell them apart ({error}). "
            "Give the column a name without a dot"
        ) from error


class _Merge:
    """One comparison of two schemas, which gives the third.

    Args:
        full_name: For messages.
        last_column_id: New fields get the numbers after it.
        keep: Whether what is missing stays.
        follows_order: Whether columns come to stand where the wanted schema has them.
    """

    def __init__(self, full_name: str, last_column_id: int, keep: bool, follows_order: bool) -> None:
        self.changes: list[str] = []
        self._full_name = full_name
        self._last = last_column_id
        self._keep = keep
        self._follows_order = follows_order

    def struct(
        self, now: Sequence[NestedField], then: Sequence[NestedField], path: tuple[str, ...]
    ) -> list[NestedField]:
        matched = _matched(now, then)
        fields = []
        for column in then:
            at = (*path, column.name)
            old = matched.get(column.name)
            if old is None:
                self.changes.append(f"added {'.'.join(at)} {column.field_type}")
                fields.append(self._new(column))
            else:
                fields.append(self._column(old, column, at))
        taken = {old.field_id for old in matched.values()}
        for old in now:
            if old.field_id in taken:
                continue
            name = ".".join((*path, old.name))
            if not self._keep:
                self.changes.append(f"dropped {name}")
                continue
            if old.required:
                self.changes.append(f"made {name} optional")
            fields.append(old.model_copy(update={"required": False}))
        return self._ordered(now, fields, path)

    def _ordered(
        self, now: Sequence[NestedField], fields: list[NestedField], path: tuple[str, ...]
    ) -> list[NestedField]:
        positions = {field.field_id: number for number, field in enumerate(now)}
        common = [positions[field.field_id] for field in fields if field.field_id in positions]
        if not self._follows_order:
            return sorted(fields, key=lambda field: positions.get(field.field_id, len(now)))
        if common != sorted(common):
            self.changes.append(f"reordered the fields of {'.'.join(path)}" if path else "reordered columns")
        return fields

    def _column(self, old: NestedField, new: NestedField, at: tuple[str, ...]) -> NestedField:
        if old.name != new.name:
            self.changes.append(f"renamed {'.'.join((*at[:-1], old.name))} to {new.name}")
        if old.required and not new.required:
            self.changes.append(f"made {'.'.join(at)} optional")
        return old.model_copy(
            update={
                "name": new.name,
                "field_type": self._type(old.field_type, new.field_type, at),
                "required": old.required and new.required,
                "doc": new.doc or old.doc,
            }
        )

    def _type(self, old: IcebergType, new: IcebergType, at: tuple[str, ...]) -> IcebergType:
        from pyiceberg.types import ListType, MapType, StructType

        if isinstance(old, StructType) and isinstance(new, StructType):
            return StructType(*self.struct(old.fields, new.fields, at))
        if isinstance(old, ListType) and isinstance(new, ListType):
            return ListType(
                old.element_id,
                self._type(old.element_type, new.element_type, (*at, "element")),
                old.element_required and new.element_required,
            )
        if isinstance(old, MapType) and isinstance(new, MapType):
            # The key of a map cannot evolve.
            if _shape(old.key_type) != _shape(new.key_type):
                raise self._refused(old.key_type, new.key_type, (*at, "key"))
            return MapType(
                old.key_id,
                old.key_type,
                old.value_id,
                self._type(old.value_type, new.value_type, (*at, "value")),
                old.value_required and new.value_required,
            )
        if _shape(old) == _shape(new):
            return old
        if not _widens(old, new):
            raise self._refused(old, new, at)
        self.changes.append(f"widened {'.'.join(at)} from {old} to {new}")
        return new

    def _new(self, column: NestedField) -> NestedField:
        from pyiceberg.schema import assign_fresh_schema_ids

        number = self._next_id()
        kind = assign_fresh_schema_ids(column.field_type, self._next_id)
        # Rows that stand have no value for it.
        return column.model_copy(update={"field_id": number, "field_type": kind, "required": False})

    def _next_id(self) -> int:
        self._last += 1
        return self._last

    def _refused(self, old: IcebergType, new: IcebergType, at: tuple[str, ...]) -> PublicationError:
        kept = _said(old)
        return PublicationError(
            f"{self._full_name}: column {'.'.join(at)!r} is {kept} in the table and {_said(new)} now, which Iceberg cannot "
            f"change. Cast it to {kept}, give the column another name, or drop the table to start over; its last snapshot "
            "stands."
        )


def _matched(now: Sequence[NestedField], then: Sequence[NestedField]) -> dict[str, NestedField]:
    """Return the field of `now` that each field of `then` goes on with, by its new name."""
    by_name = {field.name: field for field in now}
    found = {column.name: by_name[column.name] for column in then if column.name in by_name}
    left: dict[str, list[NestedField]] = {}
    for field in now:
        if field.name not in found:
            left.setdefault(field.name.lower(), []).append(field)
    for column in then:
        alike = left.get(column.name.lower(), [])
        if column.name not in found and len(alike) == 1:
            found[column.name] = alike.pop()
    return found


def _widens(old: IcebergType, new: IcebergType) -> bool:
    """Tell whether Iceberg's format (version 2) lets a type become another; PyIceberg takes more than that."""
    from pyiceberg import types

    if isinstance(old, types.DecimalType) and isinstance(new, types.DecimalType):
        return old.scale == new.scale and old.precision < new.precision
    return (isinstance(old, types.IntegerType) and isinstance(new, types.LongType)) or (
        isinstance(old, types.FloatType) and isinstance(new, types.DoubleType)
    )


def _shape(kind: IcebergType) -> Any:
    """Return a type without the ids of its fields."""
    from pyiceberg.types import ListType, MapType, StructType

    if isinstance(kind, StructType):
        return "struct", tuple((field.name, _shape(field.field_type)) for field in kind.fields)
    if isinstance(kind, ListType):
        return "list", _shape(kind.element_type)
    if isinstance(kind, MapType):
        return "map", _shape(kind.key_type), _shape(kind.value_type)
    return kind


def _said(kind: IcebergType) -> str:
    """Return a type in a word: the ids of nested fields say nothing to people."""
    from pyiceberg.types import ListType, MapType, StructType

    names = {StructType: "a struct", ListType: "a list", MapType: "a map"}
    return next((name for known, name in names.items() if isinstance(kind, known)), str(kind))


def _is_same(one: Schema, other: Schema) -> bool:
    return one.fields == other.fields and set(one.identifier_field_ids) == set(other.identifier_field_ids)


def _check_case(fields: Iterable[NestedField], path: tuple[str, ...], full_name: str) -> None:
    seen: dict[str, str] = {}
    for field in fields:
        at = (*path, field.name)
        twin = seen.setdefault(field.name.lower(), field.name)
        if twin != field.name:
            raise PublicationError(
                f"{full_name}: columns {'.'.join((*path, twin))!r} and {'.'.join(at)!r} differ in case alone, and engines such as "
                "Trino take them for one. Give one of them another name"
            )
        for inner, where in _inner(field.field_type, at):
            _check_case(inner, where, full_name)


def _inner(kind: IcebergType, at: tuple[str, ...]) -> list[tuple[Sequence[NestedField], tuple[str, ...]]]:
    """Return the fields of each struct in a type, with its path."""
    from pyiceberg.types import ListType, MapType, StructType

    if isinstance(kind, StructType):
        return [(kind.fields, at)]
    if isinstance(kind, ListType):
        return _inner(kind.element_type, (*at, "element"))
    if isinstance(kind, MapType):
        return [*_inner(kind.key_type, (*at, "key")), *_inner(kind.value_type, (*at, "value"))]
    return []


def _check_policy(policy: str, changes: list[str], full_name: str) -> None:
    if policy == "additive":
        refused = [change for change in changes if not change.startswith("added ")]
        allowed = "only new columns"
    else:
        refused, allowed = (changes if policy == "refuse" else []), "no change"
    if refused:
        raise PublicationError(
            f"{full_name} changes its schema: {', '.join(refused)}. governance.schema_evolution is {policy!r}, which "
            f"allows {allowed}; the last snapshot stands. Publish under another name, or have the rule changed."
        )
