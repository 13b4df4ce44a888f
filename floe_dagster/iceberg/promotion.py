"""Publishes what an engine has written to the catalog itself: one commit of metadata, no data moves.

The engine wrote a clone of the published table (see `clones`), whose last snapshot is added to the published table; or,
the first time, a table of its own, which gets the published name.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from floe_dagster.iceberg.clones import CLONE_OF, add_schema, check_base, cloned_snapshot, set_main
from floe_dagster.iceberg.commit import (
    PUBLICATION_ID,
    UnknownOutcomeError,
    commit,
    find_snapshot,
    is_conflict,
    summary_of,
)
from floe_dagster.iceberg.errors import CatalogError, PublicationError, catalog_error, table_refused
from floe_dagster.iceberg.layout import DEFAULT_PROPERTIES
from floe_dagster.iceberg.namespaces import make_namespace
from floe_dagster.iceberg.publication import (
    PRODUCT_PROPERTY,
    PublicationOptions,
    PublicationResult,
    check_foreign,
)
from floe_dagster.iceberg.schema_change import check_evolution

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

Identifier = tuple[str, str]


def promote(
    catalog: Catalog,
    *,
    source: Identifier,
    target: Identifier,
    snapshot_properties: Mapping[str, str],
    column_docs: Mapping[str, str] | None = None,
    options: PublicationOptions | None = None,
    always_written: bool = False,
    clone: str | None = None,
) -> PublicationResult:
    """Publish a table that an engine has written.

    Args:
        catalog: From `open_catalog`.
        source: What the engine wrote: a clone of `target`, or where that does not exist a table of its own.
        target: Namespace and name of the published table.
        snapshot_properties: Kept in the summary of the snapshot.
        column_docs: Descriptions by column.
        options: What the platform asks; the mode says nothing here, since the engine has written already.
        always_written: Whether the engine makes a snapshot in any case: a clone without one was not written.
        clone: `CLONE_ID` of the clone that was made for this; any where it is not said.

    Raises:
        PublicationError: It cannot be published as it is (schema change, a table that is no clone, or an untouched one).
        CatalogError: The catalog does not answer, or somebody else has written the table meanwhile.
    """
    promotion = _Promotion(
        catalog,
        source,
        target,
        dict(snapshot_properties),
        column_docs or {},
        options or PublicationOptions(),
        always_written,
        clone,
    )
    try:
        return promotion.run()
    except Exception as error:
        refused = table_refused(error, promotion.name)
        raise refused or catalog_error(error, f"{promotion.name} could not be published") from error


class _Promotion:
    def __init__(
        self,
        catalog: Catalog,
        source: Identifier,
        target: Identifier,
        properties: dict[str, str],
        docs: Mapping[str, str],
        options: PublicationOptions,
        always_written: bool,
        made: str | None,
    ) -> None:
        self.catalog = catalog
        self.source = source
        self.target = target
        self.name = ".".join(target)
        self.id = uuid.uuid4().hex
        self.properties = {**properties, PUBLICATION_ID: self.id}
        self.docs = {name.lower(): text for name, text in docs.items() if text}
        self.options = options
        self.always_written = always_written
        self.made = made
        self.begun = time.time()
        self.evolved: tuple[str, ...] = ()
        self.engine: Mapping[str, Any] = {}

    def run(self) -> PublicationResult:
        written = self.catalog.load_table(self.source)
        last = written.metadata.current_snapshot_id
        if last is not None and last != cloned_snapshot(written):
            self.engine = summary_of(written, last)
        if self.catalog.table_exists(self.target):
            return self._extend(self.catalog.load_table(self.target), written)
        return self._begin(written)

    def _extend(self, published: Table, clone: Table) -> PublicationResult:
        check_base(clone, published, self.made)
        if self.always_written and clone.metadata.current_snapshot_id == cloned_snapshot(clone):
            raise PublicationError(
                f"{self.name}: the engine has written nothing to {'.'.join(self.source)}, which the catalog has for it: what "
                "it built is somewhere else. Is the catalog that the engine was told (its config.catalog) plugins.catalog?"
            )
        check_foreign(published, self.options.recovery, self.name)
        schema = self._documented(clone.schema(), published.schema())
        self.evolved = tuple(
            check_evolution(published.schema(), schema, self.name, policy=self.options.schema_evolution)
        )
        self._commit(published, clone, schema)
        return self._result(self.catalog.load_table(self.target), created=False)

    def _commit(self, published: Table, clone: Table, schema: Schema) -> None:
        from pyiceberg.table import update as change

        ours, theirs = published.metadata, clone.metadata
        base = ours.current_snapshot_id
        schemas = {known.schema_id for known in ours.schemas}
        specs = {spec.spec_id for spec in ours.partition_specs}
        orders = {order.order_id for order in ours.sort_orders}
        updates: list[Any] = []
        for other in sorted(theirs.schemas, key=lambda known: known.schema_id):
            if other.schema_id not in schemas and other.schema_id != theirs.current_schema_id:
                updates.append(add_schema(other))
        current = self._same(schema, ours.schemas)
        if current is None:
            current = max([*schemas, *(known.schema_id for known in theirs.schemas)]) + 1
            if theirs.current_schema_id not in schemas:
                current = theirs.current_schema_id
            updates.append(add_schema(schema.model_copy(update={"schema_id": current})))
        updates.append(change.SetCurrentSchemaUpdate(schema_id=current))
        updates += [
            change.AddPartitionSpecUpdate(spec=spec)
            for spec in theirs.partition_specs
            if spec.spec_id not in specs
        ]
        updates.append(change.SetDefaultSpecUpdate(spec_id=theirs.default_spec_id))
        updates += [
            change.AddSortOrderUpdate(sort_order=order)
            for order in theirs.sort_orders
            if order.order_id not in orders
        ]
        updates.append(change.SetDefaultSortOrderUpdate(sort_order_id=theirs.default_sort_order_id))
        updates.append(change.SetPropertiesUpdate(updates=self._table_properties(ours.properties)))
        last = clone.current_snapshot()
        requirements = (
            change.AssertTableUUID(uuid=ours.table_uuid),
            change.AssertRefSnapshotId(ref="main", snapshot_id=base),
        )
        if last is not None and last.snapshot_id != base:
            updates += [
                change.AddSnapshotUpdate(
                    snapshot=self._marked(last, parent=published.current_snapshot(), schema_id=current)
                ),
                set_main(last.snapshot_id),
            ]
        try:
            self.catalog.commit_table(published, requirements, tuple(updates))
        except Exception as error:
            if is_conflict(error):
                raise CatalogError(
                    f"{self.name}: somebody else wrote it while the model was built; it has to be built again"
                ) from error
            if not self._has_landed():
                raise
        if last is None or last.snapshot_id == base:
            # The engine found nothing to write; a retry of this run has to find its mark all the same.
            self._mark(self.catalog.load_table(self.target))

    def _marked(self, snapshot: Snapshot, *, parent: Snapshot | None, schema_id: int) -> Snapshot:
        from pyiceberg.table.snapshots import Operation, Summary

        # Format version 2, which engines write, has a summary in each snapshot.
        assert snapshot.summary is not None
        said = {**snapshot.summary.additional_properties, **self.properties}
        operation = snapshot.summary.operation
        # A table that an engine makes anew has no history, so its rows are appended; here they replace others.
        if operation == Operation.APPEND and (gone := _replaced(said, parent)):
            operation, said = Operation.OVERWRITE, {**said, **gone}
        return snapshot.model_copy(
            update={
                "parent_snapshot_id": parent.snapshot_id if parent else None,
                "schema_id": schema_id,
                "summary": Summary(operation, **said),
            }
        )

    def _has_landed(self) -> bool:
        table = self.catalog.load_table(self.target)
        return find_snapshot(table, {PUBLICATION_ID: self.id}) is not None

    def _begin(self, written: Table) -> PublicationResult:
        if written.metadata.properties.get(CLONE_OF):
            raise CatalogError(f"{self.name} is gone since the run began; the model has to be built again")
        documented = self._documented(written.schema(), None)
        with written.transaction() as transaction:
            transaction.set_properties(self._table_properties(written.metadata.properties))
            if documented != written.schema():
                with transaction.update_schema() as schema:
                    for column in documented.fields:
                        if column.doc != written.schema().find_field(column.field_id).doc:
                            schema.update_column(column.name, doc=column.doc)
        written = self.catalog.load_table(self.source)
        self._mark(written)
        make_namespace(self.catalog, self.target[0])
        self.catalog.rename_table(self.source, self.target)
        return self._result(self.catalog.load_table(self.target), created=True)

    def _mark(self, table: Table) -> None:
        """Commit a snapshot that changes no row and bears our properties."""
        transaction = table.transaction()
        with transaction.update_snapshot(snapshot_properties=self.properties).fast_append():
            pass
        try:
            commit(transaction)
        except UnknownOutcomeError:
            if find_snapshot(self.catalog.load_table(table.name()), {PUBLICATION_ID: self.id}) is None:
                raise

    def _table_properties(self, present: Mapping[str, str]) -> dict[str, str]:
        wanted = {
            **{name: value for name, value in DEFAULT_PROPERTIES.items() if name not in present},
            **self.options.layout.properties,
        }
        if self.options.product:
            wanted[PRODUCT_PROPERTY] = self.options.product
        return wanted

    def _documented(self, schema: Schema, before: Schema | None) -> Schema:
        """Return a schema with docs: those of the product, else those that an engine's rewrite has lost."""
        from pyiceberg.schema import Schema

        known = {field.field_id: field for field in before.fields} if before else {}
        fields = []
        for field in schema.fields:
            old = known.get(field.field_id)
            doc = self.docs.get(field.name.lower()) or field.doc or (old.doc if old else None)
            fields.append(field.model_copy(update={"doc": doc}))
        return Schema(
            *fields, schema_id=schema.schema_id, identifier_field_ids=list(schema.identifier_field_ids)
        )

    def _same(self, schema: Schema, known: list[Schema]) -> int | None:
        return next(
            (
                other.schema_id
                for other in known
                if other.fields == schema.fields and other.identifier_field_ids == schema.identifier_field_ids
            ),
            None,
        )

    def _result(self, table: Table, *, created: bool) -> PublicationResult:
        snapshot = table.current_snapshot()
        assert snapshot is not None
        summary = summary_of(table, snapshot.snapshot_id)
        last = self.engine

        def count(name: str, found: Mapping[str, Any] = summary) -> int:
            return int(found.get(name) or 0)

        # Rows that position deletes hide still count as records of their files.
        hidden = count("total-position-deletes")
        rows = count("total-records") - hidden
        replaced = created or (count("added-records", last) == count("total-records") and not hidden)
        deleted = count("deleted-records", last) + count("added-position-deletes", last)
        now = time.time()
        return PublicationResult(
            table=self.name,
            snapshot_id=snapshot.snapshot_id,
            rows=rows,
            bytes=count("total-files-size"),
            files=count("total-data-files"),
            created=created,
            evolved=self.evolved,
            seconds=now - self.begun,
            location=table.location(),
            columns=tuple((column.name, str(column.field_type)) for column in table.schema().fields),
            mode="overwrite" if replaced else "increment",
            written_bytes=count("added-files-size", last),
            inserted=count("added-records", last),
            deleted=None if replaced else deleted,
            written_files=count("added-data-files", last),
            committed_at=snapshot.timestamp_ms / 1000,
            timeline=(("commit", self.begun, now),),
        )


def _replaced(said: Mapping[str, str], parent: Snapshot | None) -> dict[str, str]:
    """Return what a snapshot takes away from its parent, as its summary has to say it; nothing where it only adds.

    Args:
        said: Summary of the snapshot, without what it takes away.
        parent: The snapshot before it.
    """
    before = parent.summary.additional_properties if parent and parent.summary else {}
    names = {
        "records": "deleted-records",
        "data-files": "deleted-data-files",
        "files-size": "removed-files-size",
    }
    gone = {
        name: int(before.get(f"total-{what}") or 0)
        + int(said.get(f"added-{what}") or 0)
        - int(said.get(f"total-{what}") or 0)
        for what, name in names.items()
    }
    return {name: str(number) for name, number in gone.items() if number > 0}
