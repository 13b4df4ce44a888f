"""Publishes DuckDB relations as Iceberg tables: write the data files, then one commit.

Readers see the old snapshot until the commit and the new one after it; a crash in between leaves the
old one. Data files carry the table's field ids, so a column that was dropped and added again does not
bring its old values back.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from floe_dagster.iceberg.errors import CatalogError, PublicationError
from floe_dagster.iceberg.types import (
    ColumnType,
    UnsupportedTypeError,
    check_name,
    column_type,
    field_ids,
    quoted,
)

if TYPE_CHECKING:
    import duckdb
    from pyiceberg.catalog import Catalog
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table, Transaction

COMMIT_ATTEMPTS = 8
DATA_FILE_BYTES = 512 << 20
"""Iceberg's own default for the size of a data file. (A file per thread would be an alternative, but with it
DuckDB 2.0 crashes on a full disk.)"""
BOUNDED = {
    "DATE": ("0001-01-01", "9999-12-31"),
    "TIMESTAMP": ("0001-01-01", "9999-12-31 23:59:59.999999"),
    "TIMESTAMPTZ": ("0001-01-02 00:00:00+00", "9999-12-30 23:59:59.999999+00"),
}
"""What PyIceberg can express, by DuckDB type; infinity lies outside, too."""


@dataclass(frozen=True, slots=True)
class RelationName:
    """A table or view in DuckDB."""

    database: str
    schema: str
    identifier: str

    def sql(self) -> str:
        """Return the quoted name."""
        return ".".join(quoted(part) for part in (self.database, self.schema, self.identifier))


@dataclass(frozen=True, slots=True)
class PublicationResult:
    """A table as it was just published.

    Args:
        table: `namespace.table`.
        snapshot_id: Of the new snapshot.
        rows: Number of rows.
        bytes: Size of the data files.
        files: Number of data files.
        created: The table was made.
        evolved: What changed in its schema, for people.
        seconds: Wall time.
        location: Of the table.
        columns: Name and Iceberg type of each column.
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


def publish_relation(
    con: duckdb.DuckDBPyConnection,
    relation: RelationName,
    *,
    catalog: Catalog,
    namespace: str,
    table: str,
    snapshot_properties: Mapping[str, str],
    column_docs: Mapping[str, str] | None = None,
) -> PublicationResult:
    """Replace the content of an Iceberg table by that of a DuckDB relation, in one snapshot.

    Args:
        con: An open connection; only read from.
        relation: What to publish.
        catalog: From `open_catalog`.
        namespace: Iceberg namespace; made where it is missing.
        table: Name of the table; made where it is missing.
        snapshot_properties: Kept in the summary of the snapshot.
        column_docs: Descriptions by column.

    Raises:
        PublicationError: The relation cannot be published as it is (types, schema change, a value that does
            not fit); the table keeps its last good snapshot.
        CatalogError: The catalog or the storage does not answer, or the disk is full.
    """
    begun = time.perf_counter()
    full_name = f"{namespace}.{table}"
    columns = _columns(con, relation, full_name)
    schema = _schema(columns, column_docs or {})
    for attempt in range(COMMIT_ATTEMPTS):
        try:
            return _publish(
                con, relation, catalog, namespace, table, schema, columns, snapshot_properties, begun
            )
        except Exception as error:
            if not _is_conflict(error):
                raise _explained(error, full_name) from error
            if attempt == COMMIT_ATTEMPTS - 1:
                raise CatalogError(
                    f"{full_name}: others commit to it all the time; try again later"
                ) from error
            time.sleep(0.05 * 2**attempt)
    raise AssertionError("unreachable")


def find_snapshot(table: Table, properties: Mapping[str, str]) -> int | None:
    """Return the id of the newest snapshot whose summary has all of `properties`."""
    for snapshot in reversed(table.metadata.snapshots):
        summary = snapshot.summary
        if summary is not None and all(summary.get(key) == value for key, value in properties.items()):
            return snapshot.snapshot_id
    return None


def _columns(con: Any, relation: RelationName, full_name: str) -> list[tuple[str, ColumnType]]:
    described = con.sql(f"select * from {relation.sql()} limit 0")
    columns = []
    problems = []
    for name, kind in zip(described.columns, described.types, strict=True):
        try:
            check_name(name)
            columns.append((name, column_type(kind)))
        except UnsupportedTypeError as error:
            problems.append(f"column {name!r}: {error}")
    if problems:
        raise PublicationError(f"{full_name} cannot be published. " + "; ".join(problems))
    return columns


def _schema(columns: list[tuple[str, ColumnType]], docs: Mapping[str, str]) -> Schema:
    from pyiceberg.schema import Schema
    from pyiceberg.types import NestedField

    return Schema(
        *(
            NestedField(number, name, kind.iceberg, required=False, doc=docs.get(name) or None)
            for number, (name, kind) in enumerate(columns, 1)
        )
    )


def _publish(
    con: Any,
    relation: RelationName,
    catalog: Catalog,
    namespace: str,
    name: str,
    schema: Schema,
    columns: list[tuple[str, ColumnType]],
    properties: Mapping[str, str],
    begun: float,
) -> PublicationResult:
    from pyiceberg.exceptions import NoSuchTableError

    identifier = (namespace, name)
    created = False
    try:
        table = catalog.load_table(identifier)
        transaction = table.transaction()
    except NoSuchTableError:
        catalog.create_namespace_if_not_exists(namespace)
        # Until its first commit a new table exists nowhere: a crash leaves no empty one.
        transaction = catalog.create_table_transaction(
            identifier, schema, properties={"write.parquet.compression-codec": "zstd"}
        )
        table = transaction._table
        created = True
    evolved = () if created else _evolve(transaction, schema, f"{namespace}.{name}")
    folder = _data_folder(transaction.table_metadata.location) / uuid.uuid4().hex
    try:
        files = _write(con, relation, columns, transaction.table_metadata.schema(), folder)
        data_files = _commit(transaction, table, files, properties)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    table = catalog.load_table(identifier)
    snapshot = table.current_snapshot()
    return PublicationResult(
        table=f"{namespace}.{name}",
        snapshot_id=snapshot.snapshot_id if snapshot else None,
        rows=sum(file.record_count for file in data_files),
        bytes=sum(file.file_size_in_bytes for file in data_files),
        files=len(data_files),
        created=created,
        evolved=tuple(evolved),
        seconds=time.perf_counter() - begun,
        location=table.location(),
        columns=tuple((column.name, str(column.field_type)) for column in table.schema().fields),
    )


def _evolve(transaction: Transaction, wanted: Schema, full_name: str) -> list[str]:
    """Bring the table's schema to the wanted one, as far as Iceberg allows; returns what changed."""
    from pyiceberg.exceptions import ValidationError
    from pyiceberg.schema import promote
    from pyiceberg.types import DecimalType, PrimitiveType

    current = transaction.table_metadata.schema()
    now = {column.name: column for column in current.fields}
    then = {column.name: column for column in wanted.fields}
    changes: list[str] = []
    for name, column in then.items():
        if name not in now:
            changes.append(f"added {name} {column.field_type}")
            continue
        old, new = now[name].field_type, column.field_type
        if str(old) == str(new) or not (isinstance(old, PrimitiveType) and isinstance(new, PrimitiveType)):
            if isinstance(old, PrimitiveType) != isinstance(new, PrimitiveType):
                raise _refused(full_name, name, old, new)
            continue
        if isinstance(old, DecimalType) and isinstance(new, DecimalType) and old.scale != new.scale:
            raise _refused(full_name, name, old, new)
        try:
            promote(old, new)
        except Exception:
            raise _refused(full_name, name, old, new) from None
        changes.append(f"widened {name} from {old} to {new}")
    dropped = [name for name in now if name not in then]
    changes += [f"dropped {name}" for name in dropped]
    nested = any(str(now[n].field_type) != str(c.field_type) for n, c in then.items() if n in now)
    if not changes and not nested:
        return []
    try:
        with transaction.update_schema(allow_incompatible_changes=True) as update:
            for name in dropped:
                update.delete_column((name,))
        with transaction.update_schema() as update:
            update.union_by_name(wanted)
    except (ValidationError, ValueError) as error:
        raise PublicationError(
            f"{full_name} cannot change its schema like this: {error}. Publish under another name, or keep the type."
        ) from error
    return changes


def _refused(full_name: str, column: str, old: Any, new: Any) -> PublicationError:
    return PublicationError(
        f"{full_name}: column {column!r} is {old} in the table and {new} now, which Iceberg cannot change. Cast it "
        f"to {old}, give the column another name, or drop the table to start over; its last snapshot stands."
    )


def _data_folder(location: str) -> Path:
    parsed = urlparse(location)
    if parsed.scheme not in ("", "file"):
        raise CatalogError(f"tables at {parsed.scheme}:// cannot be written; this version writes file://")
    return Path(unquote(parsed.path)) / "data"


def _write(
    con: Any, relation: RelationName, columns: list[tuple[str, ColumnType]], schema: Schema, folder: Path
) -> list[str]:
    ids = {column.name: column for column in schema.fields}
    entries = ", ".join(field_ids(name, ids[name].field_type, ids[name].field_id) for name, _kind in columns)
    projection = ", ".join(f"{_expression(name, kind)} as {quoted(name)}" for name, kind in columns)
    folder.mkdir(parents=True)
    target = str(folder).replace("'", "''")
    con.execute(
        f"copy (select {projection} from {relation.sql()}) to '{target}' "
        f"(format parquet, compression zstd, file_size_bytes {DATA_FILE_BYTES}, field_ids {{{entries}}})"
    )
    return [str(file) for file in sorted(folder.glob("*.parquet"))]


def _expression(name: str, kind: ColumnType) -> str:
    column = quoted(name)
    if kind.sql in BOUNDED:
        text = f"column {name!r} holds a {kind.sql.lower()} beyond the years 1 to 9999, or an infinite one"
        first, last = (f"{kind.sql} '{bound}'" for bound in BOUNDED[kind.sql])
        escaped = text.replace("'", "''")
        column = (
            f"case when {column} not between {first} and {last} then error('{escaped}') else {column} end"
        )
    return f"cast({column} as {kind.sql})"


def _commit(
    transaction: Transaction, table: Table, files: list[str], properties: Mapping[str, str]
) -> list[Any]:
    from pyiceberg.io.pyarrow import parquet_files_to_data_files

    uris = [Path(file).as_uri() for file in files]
    metadata = transaction.table_metadata
    added = [
        file for file in parquet_files_to_data_files(table.io, metadata, iter(uris)) if file.record_count > 0
    ]
    kept = {file.file_path for file in added}
    for file, uri in zip(files, uris, strict=True):
        if uri not in kept:
            # DuckDB leaves an empty file per idle thread.
            Path(file).unlink()
    replaced = []
    if metadata.current_snapshot_id is not None:
        replaced = [task.file for task in table.scan().plan_files()]
    with transaction.update_snapshot(snapshot_properties=dict(properties)).overwrite() as snapshot:
        for data_file in replaced:
            snapshot.delete_data_file(data_file)
        for data_file in added:
            snapshot.append_data_file(data_file)
    transaction.commit_transaction()
    return added


def _is_conflict(error: Exception) -> bool:
    from pyiceberg.exceptions import CommitFailedException, TableAlreadyExistsError, ValidationException
    from sqlalchemy.exc import IntegrityError, OperationalError

    # Two that make the same namespace or table at once: the second finds it when it looks again.
    conflicts = (CommitFailedException, TableAlreadyExistsError, ValidationException, IntegrityError)
    if isinstance(error, conflicts):
        return True
    return isinstance(error, OperationalError) and "locked" in str(error)


def _explained(error: Exception, full_name: str) -> Exception:
    import duckdb
    from pyiceberg.exceptions import ServiceUnavailableError
    from sqlalchemy.exc import SQLAlchemyError

    first_line = next(iter(str(error).splitlines()), type(error).__name__)
    if isinstance(error, PublicationError | CatalogError):
        return error
    if isinstance(
        error, duckdb.ConversionException | duckdb.OutOfRangeException | duckdb.InvalidInputException
    ):
        return PublicationError(f"{full_name}: a value does not fit its column: {first_line}")
    if isinstance(error, OSError | duckdb.IOException | SQLAlchemyError | ServiceUnavailableError):
        with contextlib.suppress(IndexError):
            first_line = str(error).splitlines()[0]
        return CatalogError(f"{full_name} could not be written: {first_line}")
    return error
