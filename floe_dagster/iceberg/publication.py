"""Publishes DuckDB relations as Iceberg tables: write the data files, then one commit.

Readers see the old snapshot until the commit and the new one after it; a crash in between leaves the
old one. Data files carry the table's field ids, so a column that was dropped and added again does not
bring its old values back.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from floe_dagster.faults import is_fault
from floe_dagster.iceberg.changes import Changes, TableRows, any_row
from floe_dagster.iceberg.commit import (
    ATTEMPTS,
    PUBLICATION_ID,
    ConflictError,
    UnknownOutcomeError,
    commit,
    find_snapshot,
    is_conflict,
    pause,
    summary_of,
)
from floe_dagster.iceberg.errors import CatalogError, PublicationError, catalog_error, table_refused
from floe_dagster.iceberg.keys import check_key
from floe_dagster.iceberg.layout import (
    DEFAULT_PROPERTIES,
    TableLayout,
    initial_order,
    initial_spec,
    name_as_in,
    plan_layout,
    with_names_of,
)
from floe_dagster.iceberg.namespaces import make_namespace
from floe_dagster.iceberg.pyiceberg_private import apply_updates, table_of, with_metadata_kept
from floe_dagster.iceberg.relation import (
    RelationName,
    check_bounds,
    projection,
    relation_columns,
    relation_schema,
)
from floe_dagster.iceberg.schema_change import plan_schema, schema_updates
from floe_dagster.iceberg.staging import Staging
from floe_dagster.iceberg.types import ColumnType, duckdb_type

if TYPE_CHECKING:
    import duckdb
    from pyiceberg.catalog import Catalog
    from pyiceberg.manifest import DataFile
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table, Transaction

__all__ = ["PublicationOptions", "PublicationResult", "RelationName", "find_snapshot", "publish_relation"]

PRODUCT_PROPERTY = "floe.product"
"""Table property that names the product a table belongs to."""


@dataclass(frozen=True, slots=True)
class PublicationOptions:
    """How a table is written.

    Args:
        layout: Partitions, sort order, properties.
        mode: overwrite: the table becomes the relation. append: its rows are added. upsert: they take the place of
            those with the same key. increment: like overwrite, but only what changed since `before` is written.
        key: Columns that identify a row; for increments, a hint where changed rows lie.
        schema_evolution: allow, additive or refuse; from governance.
        recovery: strict: a table that somebody else has changed, or whose files are gone, is refused. repair: it is
            brought back. None: it is brought back where the relation holds all of its rows.
        before: Relation with the hashes of what stood (`row_hash`), for increments.
        product: Name of the product, kept as a table property.
        scratch: Local folder for files on their way; the system's own when None.
        folders: Local folders that DuckDB may write, with all below them; any folder when None.
    """

    layout: TableLayout = field(default_factory=TableLayout)
    mode: str = "overwrite"
    key: tuple[str, ...] = ()
    schema_evolution: str = "allow"
    recovery: str | None = None
    before: RelationName | None = None
    product: str | None = None
    scratch: Path | None = None
    folders: tuple[Path, ...] | None = None


@dataclass(frozen=True, slots=True)
class PublicationResult:
    """A table as it was just published.

    Args:
        table: `namespace.table`.
        snapshot_id: Of the new snapshot.
        rows: Number of rows of the table.
        bytes: Size of its data files.
        files: Number of its data files.
        created: The table was made.
        evolved: What changed in its schema and layout, for people.
        seconds: Wall time.
        location: Of the table.
        columns: Name and Iceberg type of each column.
        mode: How it was written.
        written_bytes: Size of the files that this publication wrote.
        inserted: Rows that are new or changed; all of them with overwrite.
        deleted: Rows that are gone or changed; None with overwrite, where nobody counts.
        attempts: Commits that it took.
        written_files: Number of the files that this publication wrote.
        committed_at: Seconds since the epoch, of the snapshot.
        timeline: What it did, each with beginning and end in seconds since the epoch.
    """

    table: str
    snapshot_id: int | None
    rows: int
    bytes: int
    files: int
    created: bool
    evolved: tuple[str, ...]
    seconds: float
    location: str
    columns: tuple[tuple[str, str], ...] = field(default=())
    mode: str = "overwrite"
    written_bytes: int = 0
    inserted: int = 0
    deleted: int | None = None
    attempts: int = 1
    written_files: int = 0
    committed_at: float | None = None
    timeline: tuple[tuple[str, float, float], ...] = ()


def publish_relation(
    con: duckdb.DuckDBPyConnection,
    relation: RelationName,
    *,
    catalog: Catalog,
    namespace: str,
    table: str,
    snapshot_properties: Mapping[str, str],
    column_docs: Mapping[str, str] | None = None,
    options: PublicationOptions | None = None,
) -> PublicationResult:
    """Publish a DuckDB relation to an Iceberg table, in one snapshot.

    Args:
        con: An open connection that nobody else uses meanwhile; the database is only read from.
        relation: What to publish.
        catalog: From `open_catalog`.
        namespace: Iceberg namespace; made where it is missing.
        table: Name of the table; made where it is missing.
        snapshot_properties: Kept in the summary of the snapshot.
        column_docs: Descriptions by column.
        options: How it is written; all of it replaced when left out.

    Raises:
        PublicationError: The relation cannot be published as it is (types, schema change, a value that does
            not fit); the table keeps its last good snapshot.
        CatalogError: The catalog or the storage does not answer, or the disk is full.
    """
    full_name = f"{namespace}.{table}"
    columns = relation_columns(con, relation, full_name)
    schema = relation_schema(columns, column_docs or {}, full_name)
    check_bounds(con, relation, columns, full_name)
    publication = _Publication(
        con=con,
        relation=relation,
        columns=columns,
        schema=schema,
        catalog=catalog,
        identifier=(namespace, table),
        properties=dict(snapshot_properties),
        options=_with_names_of(options or PublicationOptions(), [name for name, _kind in columns]),
    )
    try:
        return publication.run()
    except Exception as error:
        raise _explained(error, full_name) from error


class _Publication:
    """One publication: planned again after each conflict, its files written once where nothing else changed."""

    def __init__(
        self,
        *,
        con: duckdb.DuckDBPyConnection,
        relation: RelationName,
        columns: list[tuple[str, ColumnType]],
        schema: Schema,
        catalog: Catalog,
        identifier: tuple[str, str],
        properties: dict[str, str],
        options: PublicationOptions,
    ) -> None:
        self.con = con
        self.columns = columns
        self.schema = schema
        self.catalog = catalog
        self.identifier = identifier
        self.full_name = ".".join(identifier)
        self.options = options
        self.id = uuid.uuid4().hex
        self.properties = {**properties, PUBLICATION_ID: self.id}
        self.relation = relation
        self.rows_sql = projection(relation, columns)
        self.begun = time.perf_counter()
        self.staged: Staging | None = None
        self.evolved: tuple[str, ...] = ()
        self.mode = options.mode
        self.changes: Changes | None = None
        self.created = False
        self.attempts = 0
        self.is_sent = False
        self.timeline: list[tuple[str, float, float]] = []

    def run(self) -> PublicationResult:
        """Try until it is committed, or certain that it cannot be."""
        unknown = False
        while True:
            self.attempts += 1
            try:
                return self._attempt(look_first=self.attempts > 1)
            except Exception as error:
                is_unknown = isinstance(error, UnknownOutcomeError)
                unknown = unknown or is_unknown
                if not is_unknown and not is_conflict(error):
                    # A fault of the program after the commit was sent says nothing of what the catalog did with it.
                    self._give_up(unknown or (self.is_sent and is_fault(error)))
                    raise
                if self.attempts == ATTEMPTS:
                    self._give_up(unknown)
                    if is_unknown:
                        raise CatalogError(
                            f"{self.full_name}: the catalog did not say whether it took the commit ({error}); the next "
                            "run looks and repeats what is missing"
                        ) from error
                    raise CatalogError(
                        f"{self.full_name}: others commit to it all the time; try again later"
                    ) from error
                pause(self.attempts - 1)

    def _attempt(self, *, look_first: bool) -> PublicationResult:
        self.is_sent = False
        with self._timed("load table"):
            existing = self._load()
        if look_first and existing is not None:
            landed = find_snapshot(existing, {PUBLICATION_ID: self.id})
            if landed is not None:
                return self._result(existing, landed)
        with self._timed("write files"):
            transaction = self._begin(existing)
            replaced, added = self._stage(existing, transaction)
        with self._timed("commit"):
            committed = self._commit(existing, transaction, replaced, added)
        return self._result(committed, find_snapshot(committed, {PUBLICATION_ID: self.id}))

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begun = time.time()
        try:
            yield
        finally:
            self.timeline.append((name, begun, time.time()))

    def _commit(
        self,
        existing: Table | None,
        transaction: Transaction,
        replaced: list[DataFile],
        added: list[DataFile],
    ) -> Table:
        from floe_dagster.iceberg.overwriting import overwrite

        update = transaction.update_snapshot(snapshot_properties=self._summary())
        with overwrite(update) if replaced or existing is None else update.fast_append() as snapshot:
            for data_file in replaced:
                snapshot.delete_data_file(data_file)
            for data_file in added:
                snapshot.append_data_file(data_file)
        self.is_sent = True
        return commit(transaction)

    def _load(self) -> Table | None:
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

        try:
            return self.catalog.load_table(self.identifier)
        except (NoSuchTableError, NoSuchNamespaceError, FileNotFoundError) as error:
            # A catalog whose table lost its metadata file also says "not found".
            if isinstance(error, FileNotFoundError) or "Location does not exist" in str(error):
                self._forget_lost_table(error)
            return None

    def _forget_lost_table(self, error: Exception) -> None:
        """Take a table out of the catalog whose files are gone, where all of its rows are at hand."""
        recovery = self.options.recovery
        holds_all_rows = self.options.mode in ("overwrite", "increment")
        if recovery == "strict" or (recovery is None and not holds_all_rows):
            raise PublicationError(
                f"{self.full_name} is in the catalog, and its files are gone from the storage ({error}). Restore them; or "
                "set governance.stale_table_recovery_mode to 'repair', and the next run makes the table again from "
                "the model's rows"
            ) from error
        self.catalog.drop_table(self.identifier)

    def _begin(self, existing: Table | None) -> Transaction:
        from pyiceberg.table.update import SetPropertiesUpdate

        options = self.options
        if existing is None:
            make_namespace(self.catalog, self.identifier[0])
            self.created = True
            properties = {**DEFAULT_PROPERTIES, **options.layout.properties}
            if options.product:
                properties[PRODUCT_PROPERTY] = options.product
            # Until its first commit a new table exists nowhere: a crash leaves no empty one.
            made = self.catalog.create_table_transaction(
                self.identifier,
                self.schema,
                partition_spec=initial_spec(options.layout, self.schema, self.full_name),
                sort_order=initial_order(options.layout, self.schema, self.full_name),
                properties=properties,
            )
            return with_metadata_kept(made)
        self.created = False
        check_foreign(existing, options.recovery, self.full_name)
        transaction = with_metadata_kept(existing.transaction())
        metadata = existing.metadata
        planned = plan_schema(
            metadata.schema(),
            self.schema,
            self.full_name,
            last_column_id=metadata.last_column_id,
            policy=options.schema_evolution,
            keep_columns=self._keeps_columns,
        )
        layout = plan_layout(metadata, planned.schema, options.layout, self.full_name)
        updates, requirements = schema_updates(metadata, planned.schema)
        if options.product and metadata.properties.get(PRODUCT_PROPERTY) != options.product:
            updates.append(SetPropertiesUpdate(updates={PRODUCT_PROPERTY: options.product}))
        # At once: a schema whose partition field has lost its column is none, neither is a spec whose column is to come.
        apply_updates(transaction, (*updates, *layout.updates), (*requirements, *layout.requirements))
        self.evolved = (*planned.changes, *layout.changes)
        # What the model's nested fields lack of the table's comes as null.
        self.rows_sql = projection(
            self.relation, _as_in(self.columns, planned.schema) if self._keeps_columns else self.columns
        )
        return transaction

    @property
    def _keeps_columns(self) -> bool:
        return self.options.mode in ("append", "upsert")

    def _stage(
        self, existing: Table | None, transaction: Transaction
    ) -> tuple[list[DataFile], list[DataFile]]:
        """Write files, where those of an earlier attempt cannot be taken; returns those that go and those that come."""
        metadata = transaction.table_metadata
        options = self.options
        staging = Staging(
            self.con,
            table_of(transaction).io,
            metadata,
            options.layout,
            self.id,
            options.scratch,
            options.folders,
        )
        mode = self.options.mode if existing is not None else "overwrite"
        names = [name for name, _kind in self.columns]
        if mode in ("upsert", "increment"):
            assert existing is not None
            # What is written depends on what stands, so each attempt writes anew.
            self._discard()
            self.staged = staging
            rows = TableRows(self.con, existing, metadata, existing.io, self.rows_sql, self.columns)
            try:
                if mode == "upsert":
                    self.changes = rows.upsert(staging, self.options.key, self.full_name)
                else:
                    assert self.options.before is not None
                    before = self.options.before.sql()
                    self.changes = rows.increment(staging, before, self.options.key)
            finally:
                rows.close()
            if self.changes is not None:
                self.mode = mode
                return list(self.changes.replaced), staging.files
            staging.discard()
        self.mode = "append" if mode == "append" else "overwrite"
        if self.options.mode == "upsert":
            # The first publication takes any rows; those that the next one could not tell apart are refused now.
            check_key(self.options.key, names, self.full_name, partial(any_row, self.con, self.rows_sql))
        if self.staged is None or self.staged is staging or self.staged.signature() != staging.signature():
            self._discard()
            self.staged = staging
            staging.write(self.rows_sql, names)
        replaced = []
        if existing is not None and mode != "append" and metadata.current_snapshot_id is not None:
            replaced = [task.file for task in existing.scan().plan_files()]
        return replaced, self.staged.files

    def _summary(self) -> dict[str, str]:
        summary = {**self.properties, "floe.write-mode": self.mode}
        if self.changes is not None and self.mode in ("upsert", "increment"):
            summary["floe.rows-inserted"] = str(self.changes.inserted)
            summary["floe.rows-deleted"] = str(self.changes.deleted)
        return summary

    def _discard(self) -> None:
        if self.staged is not None:
            self.staged.discard()
            self.staged = None

    def _give_up(self, unknown: bool) -> None:
        # A commit that may still land names these files; maintenance finds them where it does not.
        if not unknown:
            self._discard()

    def _result(self, table: Table, snapshot_id: int | None) -> PublicationResult:
        summary = summary_of(table, snapshot_id)
        snapshot = table.metadata.snapshot_by_id(snapshot_id) if snapshot_id is not None else None
        added = self.staged.files if self.staged is not None else []
        written = sum(file.record_count for file in added)
        inserted, deleted = written, None
        if self.changes is not None and self.mode in ("upsert", "increment"):
            inserted, deleted = self.changes.inserted, self.changes.deleted
        return PublicationResult(
            table=self.full_name,
            snapshot_id=snapshot_id,
            rows=int(summary.get("total-records") or 0),
            bytes=int(summary.get("total-files-size") or 0),
            files=int(summary.get("total-data-files") or 0),
            created=self.created,
            evolved=self.evolved,
            seconds=time.perf_counter() - self.begun,
            location=table.location(),
            columns=tuple((column.name, str(column.field_type)) for column in table.schema().fields),
            mode=self.mode,
            written_bytes=sum(file.file_size_in_bytes for file in added),
            inserted=inserted,
            deleted=deleted,
            attempts=self.attempts,
            written_files=len(added),
            committed_at=snapshot.timestamp_ms / 1000 if snapshot else None,
            timeline=tuple(self.timeline),
        )


def _with_names_of(options: PublicationOptions, names: list[str]) -> PublicationOptions:
    """Return options that write columns as the relation does."""
    return replace(
        options,
        layout=with_names_of(options.layout, names),
        key=tuple(name_as_in(name, names) for name in options.key),
    )


def _as_in(columns: list[tuple[str, ColumnType]], schema: Schema) -> list[tuple[str, ColumnType]]:
    """Return columns with the types that they have in a table, where these are nested."""
    known = {field.name: field.field_type for field in schema.fields}
    return [
        (name, kind if kind.iceberg.is_primitive else ColumnType(duckdb_type(known[name]), known[name]))
        for name, kind in columns
    ]


def check_foreign(existing: Table, recovery: str | None, full_name: str) -> None:
    """Check that what stands was published by a run, where the platform wants to know.

    Args:
        existing: The published table.
        recovery: See `PublicationOptions`.
        full_name: For the message.

    Raises:
        PublicationError: Recovery is strict, and somebody else wrote the current snapshot.
    """
    if recovery != "strict":
        return
    current = existing.current_snapshot()
    summary = summary_of(existing, current.snapshot_id if current else None)
    if current is not None and not any(str(name).startswith("floe.") for name in summary):
        raise PublicationError(
            f"{full_name}: somebody else wrote snapshot {current.snapshot_id} ({summary.get('operation')}), and "
            "governance.stale_table_recovery_mode is 'strict'. Roll the table back, or set it to 'repair' to "
            "publish over it."
        )


def _explained(error: Exception, full_name: str) -> Exception:
    import duckdb

    first_line = next(iter(str(error).splitlines()), type(error).__name__)
    if isinstance(
        error, duckdb.ConversionException | duckdb.OutOfRangeException | duckdb.InvalidInputException
    ):
        return PublicationError(f"{full_name}: a value does not fit its column: {first_line}")
    if isinstance(error, duckdb.IOException):
        return CatalogError(f"{full_name} could not be written: {first_line}")
    if isinstance(error, ConflictError | UnknownOutcomeError):
        return CatalogError(f"{full_name} could not be written: {first_line}")
    return table_refused(error, full_name) or catalog_error(error, f"{full_name} could not be written")
