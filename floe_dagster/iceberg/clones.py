"""Clones: tables that begin as another table's current snapshot, for an engine to write what is not published yet.

A clone repeats all that field ids hang on (schemas, partition specs, sort orders) and shares the files of its table; what
is written to it lies below that table's location from the start. So publication moves no data, and nobody may drop a
clone but `drop_clone`: an engine's DROP would remove files that the published table needs.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from floe_dagster.iceberg.commit import summary_of
from floe_dagster.iceberg.errors import CatalogError, PublicationError
from floe_dagster.iceberg.pyiceberg_private import table_of

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table

CLONE_OF = "floe.clone-of"
"""Table property of a clone: `namespace.table` of the published one."""

CLONED_SNAPSHOT = "floe.cloned-snapshot"
"""Table property of a clone: the snapshot that it began with; empty where there was none."""

CLONE_ID = "floe.clone-id"
"""Table property of a clone: of no other table, in no other catalog."""

OWN_PROPERTIES = frozenset(
    {CLONE_OF, CLONED_SNAPSHOT, CLONE_ID, "write.data.path", "write.metadata.path", "gc.enabled"}
)
"""What a clone does not share with its table."""


def is_clone(table: Table) -> bool:
    """Tell whether a table is a clone."""
    return CLONE_OF in table.metadata.properties


def clone_id(clone: Table) -> str | None:
    """Return what tells a clone from all others."""
    return clone.metadata.properties.get(CLONE_ID)


def make_clone(catalog: Catalog, published: Table, identifier: tuple[str, str]) -> Table:
    """Make a clone of a table's current snapshot.

    Args:
        catalog: From `open_catalog`; one with servers' commits (REST).
        published: As it was just loaded.
        identifier: Namespace, which exists, and name of the clone; a clone of that name is replaced.

    Raises:
        PublicationError: There is a table of that name that is no clone.
    """
    from pyiceberg.table import update as change

    drop_clone(catalog, identifier)
    creation = catalog.create_table_transaction(
        identifier,
        schema=published.schema(),
        partition_spec=published.spec(),
        sort_order=published.sort_order(),
    )
    original, new, snapshot = published.metadata, creation.table_metadata, published.current_snapshot()
    location = published.location().rstrip("/")
    properties = {name: value for name, value in original.properties.items() if name not in OWN_PROPERTIES}
    properties |= {
        CLONE_OF: ".".join(published.name()),
        CLONED_SNAPSHOT: str(snapshot.snapshot_id) if snapshot else "",
        CLONE_ID: uuid.uuid4().hex,
        "write.data.path": original.properties.get("write.data.path") or f"{location}/data",
        "write.metadata.path": original.properties.get("write.metadata.path") or f"{location}/metadata",
        # An engine's own maintenance must not expire what the published table reads.
        "gc.enabled": "false",
    }
    updates: list[Any] = [
        change.AssignUUIDUpdate(uuid=new.table_uuid),
        change.UpgradeFormatVersionUpdate(format_version=original.format_version),
        *(add_schema(schema) for schema in original.schemas),
        change.SetCurrentSchemaUpdate(schema_id=original.current_schema_id),
        *(change.AddPartitionSpecUpdate(spec=spec) for spec in original.partition_specs),
        change.SetDefaultSpecUpdate(spec_id=original.default_spec_id),
        # The unsorted one, 0, too: a catalog does not know it by itself.
        *(change.AddSortOrderUpdate(sort_order=order) for order in original.sort_orders),
        change.SetDefaultSortOrderUpdate(sort_order_id=original.default_sort_order_id),
        change.SetLocationUpdate(location=new.location),
        change.SetPropertiesUpdate(updates=properties),
    ]
    if snapshot is not None:
        updates += [
            change.AddSnapshotUpdate(snapshot=snapshot),
            set_main(snapshot.snapshot_id),
        ]
    catalog.commit_table(table_of(creation), (change.AssertCreate(),), tuple(updates))
    return catalog.load_table(identifier)


def add_schema(schema: Schema) -> Any:
    """Return the change that makes a schema known to a table."""
    from pyiceberg.table.update import AddSchemaUpdate

    return AddSchemaUpdate(schema=schema)  # type: ignore[call-arg]  # PyIceberg's aliases are not typed


def set_main(snapshot_id: int) -> Any:
    """Return the change that makes a snapshot the current one."""
    from pyiceberg.table.update import SetSnapshotRefUpdate

    return SetSnapshotRefUpdate(ref_name="main", type="branch", snapshot_id=snapshot_id)  # type: ignore[call-arg]


def cloned_snapshot(clone: Table) -> int | None:
    """Return the snapshot that a clone began with."""
    found = clone.metadata.properties.get(CLONED_SNAPSHOT)
    return int(found) if found else None


def drop_clone(catalog: Catalog, identifier: tuple[str, str]) -> bool:
    """Take a clone out of the catalog, and leave all files where they are; tells whether there was one.

    Raises:
        PublicationError: It is no clone.
    """
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    try:
        table = catalog.load_table(identifier)
    except (NoSuchTableError, NoSuchNamespaceError):
        return False
    if not is_clone(table):
        raise PublicationError(f"{'.'.join(identifier)} is no clone of a published table")
    catalog.drop_table(identifier)
    return True


def drop_clones(catalog: Catalog, namespace: str, ids: Collection[str] | None = None) -> list[str]:
    """Take clones of a namespace out of the catalog, and leave all files where they are; returns their names.

    Args:
        catalog: From `open_catalog`.
        namespace: Where they stand.
        ids: `CLONE_ID` of those that are meant; all where it is not said.
    """
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    dropped = []
    try:
        tables = catalog.list_tables(namespace)
    except NoSuchNamespaceError:
        return []
    for identifier in tables:
        try:
            table = catalog.load_table(identifier)
            if not is_clone(table) or (ids is not None and clone_id(table) not in ids):
                continue
            catalog.drop_table(identifier)
        except NoSuchTableError:
            continue
        dropped.append(str(identifier[-1]))
    return dropped


def check_base(clone: Table, published: Table, made: str | None = None) -> None:
    """Check that nobody has written a published table since it was cloned.

    Args:
        clone: Of the table.
        published: As it stands.
        made: `CLONE_ID` of the clone that was written; any where it is not said.

    Raises:
        PublicationError: The clone is another table's.
        CatalogError: Somebody has written it, or the clone is one that another run has made since.
    """
    name = ".".join(published.name())
    if clone.metadata.properties.get(CLONE_OF) != name:
        raise PublicationError(
            f"{'.'.join(clone.name())} is no clone of {name}: what stands there was not made by this run. A model that "
            "sets on_table_exists, or a hook that drops its table, does this; take it out. So does another run of the product "
            "that began meanwhile, on another machine"
        )
    if made is not None and clone_id(clone) != made:
        # Its tests are those of another run.
        raise CatalogError(
            f"{name}: another run of the product has begun meanwhile and has made {'.'.join(clone.name())} anew; what it builds "
            "there is not this run's to publish"
        )
    current = published.metadata.current_snapshot_id
    if cloned_snapshot(clone) != current:
        operation = summary_of(published, current).get("operation")
        raise CatalogError(
            f"{name}: somebody else has written snapshot {current} ({operation}) while the model was built; it has to be "
            "built again"
        )
