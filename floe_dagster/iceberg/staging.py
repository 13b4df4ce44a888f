"""Writes the data files of one publication: DuckDB writes Parquet, which is uploaded while it goes on.

Nothing here is visible to readers: files exist, and no snapshot names them yet.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floe_dagster.atomic import move_atomically
from floe_dagster.iceberg.errors import PublicationError
from floe_dagster.iceberg.layout import TableLayout
from floe_dagster.iceberg.pyiceberg_private import partition_value
from floe_dagster.iceberg.storage import local_folder
from floe_dagster.iceberg.types import duckdb_type, field_ids, quoted
from floe_dagster.iceberg.uploads import Growing, is_finished, upload

if TYPE_CHECKING:
    import duckdb
    from pyiceberg.io import FileIO
    from pyiceberg.manifest import DataFile
    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.typedef import Record

LOCAL_FILE_BYTES = 512 << 20
"""Iceberg's own default for the size of a data file. (A file per thread would be an alternative, but with it
DuckDB 2.0 crashes on a full disk.)"""
REMOTE_FILE_BYTES = 32 << 20
"""Smaller where files are uploaded: several are under way at once, and one that breaks off is sent again whole."""
UPLOADS = 2
"""Finished files that are uploaded at once; beside them, as many that are still being written."""
UPLOAD_ATTEMPTS = 6
FOLLOWED_BYTES = 10 << 20
"""The size of PyArrow's parts: of a smaller file nothing would be sent before its end."""
DICTIONARY_ENTRIES = 8_192
"""A column with more values in a row group is written plainly. DuckDB's own limit, a fifth of the rows, lets it build
dictionaries of columns such as ids and throw them away: a tenth of the time, for files of the same size."""
MAXIMUM_PARTITIONS = 2_000
_POLL_SECONDS = 0.02
_INDEX = "__floe_partition"


@dataclass(slots=True)
class Staging:
    """Data files of one publication.

    Args:
        con: A DuckDB connection of its own.
        io: Of the table.
        metadata: The table as it will be: schema and spec decide how files are written.
        layout: Sort order of what is written.
        publication_id: Part of every file's name.
        scratch: Local folder for what is uploaded; the system's own when None.
        folders: Local folders that DuckDB may write, with all below them; any folder when None.
    """

    con: duckdb.DuckDBPyConnection
    io: FileIO
    metadata: TableMetadata
    layout: TableLayout
    publication_id: str
    scratch: Path | None = None
    folders: Sequence[Path] | None = None
    files: list[DataFile] = field(default_factory=list)
    _begun: list[str] = field(default_factory=list)
    _names: Any = field(default_factory=threading.Lock)

    def signature(self) -> tuple[Any, ...]:
        """Return what files depend on: those of an earlier attempt can be committed where it is the same."""
        metadata = self.metadata
        return metadata.location, metadata.schema(), metadata.spec(), metadata.table_uuid

    def write(self, query: str, columns: Sequence[str], *, once: bool = False) -> list[DataFile]:
        """Write the rows of a query and return their data files.

        Args:
            query: SQL that gives `columns`, in any order.
            columns: Names of the table's columns that the query gives.
            once: The query reads a stream, so it can run once only.

        Raises:
            PublicationError: More partitions than `MAXIMUM_PARTITIONS`.
            OSError: A file cannot be written or uploaded.
        """
        # With threads of its own for writing, a COPY of DuckDB 2.0 that fails often never returns, and no interrupt
        # ends it. Without them it is as fast.
        self._run("set async_threads = 0")
        query, columns = self._with_sources(query, columns)
        folder = self._folder()
        held = f"floe_held_{id(self)}"
        try:
            if once and self._partition_fields():
                # Partitions are looked up before rows are written.
                self._run(f"create or replace temp table {held} as {query}")
                query = f"select * from {held}"
            with self._partitioned(query) as partitions:
                written = self._copy(query, columns, partitions, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if once:
                with contextlib.suppress(Exception):
                    self._run(f"drop table if exists {held}")
        self.files += written
        return written

    def discard(self) -> None:
        """Remove what was delivered, in part, too; only when it is certain that no snapshot names it."""
        for location in self._begun:
            with contextlib.suppress(Exception):
                self.io.delete(location)
        self._begun.clear()
        self.files.clear()

    @property
    def _is_local(self) -> bool:
        return local_folder(self.metadata.location) is not None

    def _folder(self) -> Path:
        parent = self.scratch or Path(tempfile.gettempdir())
        table = local_folder(self.metadata.location)
        if table is not None and self._may_write(table):
            # In the same file system, so that delivering is renaming.
            parent = table / "data"
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".staging-{self.publication_id}-", dir=parent))

    def _may_write(self, folder: Path) -> bool:
        """Tell whether DuckDB may write a folder; of a connection that reads a product's views it is a few alone."""
        return self.folders is None or any(folder.is_relative_to(one) for one in self.folders)

    def _with_sources(self, query: str, columns: Sequence[str]) -> tuple[str, Sequence[str]]:
        """Return a query that gives what partitions are computed from, too: null, where rows have a column no more."""
        by_id = {column.field_id: column for column in self.metadata.schema().fields}
        sources = {field.source_id: by_id[field.source_id] for field in self._partition_fields()}
        lacking = [source for source in sources.values() if source.name not in columns]
        if not lacking:
            return query, columns
        nulls = ", ".join(
            f"null::{duckdb_type(source.field_type)} as {quoted(source.name)}" for source in lacking
        )
        return f"select *, {nulls} from ({query})", [*columns, *(source.name for source in lacking)]

    def _partition_fields(self) -> list[Any]:
        return [f for f in self.metadata.spec().fields if str(f.transform) != "void"]

    @contextlib.contextmanager
    def _partitioned(self, query: str) -> Iterator[_Partitions | None]:
        if not self._partition_fields():
            yield None
            return
        partitions = _Partitions(self.con, self.metadata, query)
        try:
            partitions.prepare()
            yield partitions
        finally:
            partitions.close()

    def _copy(
        self, query: str, columns: Sequence[str], partitions: _Partitions | None, folder: Path
    ) -> list[DataFile]:
        order = self._order(columns)
        records = partitions.records if partitions else [None]
        if len(records) < 2:
            return self._copy_files(f"{query}{order}", columns, folder, records)
        assert partitions is not None
        if not order:
            return self._copy_files(partitions.indexed_query(), columns, folder, records, partitioned=True)
        # DuckDB does not keep an order within partitions: each is sorted by itself.
        self._run(self._statement(partitions.indexed_query(), columns, folder / "parts", partitioned=True))
        written: list[DataFile] = []
        for part in sorted((folder / "parts").iterdir()):
            number = int(part.name.rpartition("=")[2])
            sorted_query = (
                f"select * from read_parquet({_text(part / '*.parquet')}, hive_partitioning=false){order}"
            )
            written += self._copy_files(sorted_query, columns, folder / f"sorted-{number}", [records[number]])
            shutil.rmtree(part)
        return written

    def _order(self, columns: Sequence[str]) -> str:
        entries = [
            f"{quoted(entry.column)} {'desc' if entry.descending else 'asc'} nulls {'first' if entry.nulls_first else 'last'}"
            for entry in self.layout.sort_by or ()
            if entry.column in columns
        ]
        return f" order by {', '.join(entries)}" if entries else ""

    def _statement(
        self, query: str, columns: Sequence[str], folder: Path, *, partitioned: bool = False
    ) -> str:
        ids = {column.name: column for column in self.metadata.schema().fields}
        entries = ", ".join(field_ids(name, ids[name].field_type, ids[name].field_id) for name in columns)
        size: Any = self.metadata.properties.get("write.target-file-size-bytes")
        size = size if str(size).isdigit() else LOCAL_FILE_BYTES if self._is_local else REMOTE_FILE_BYTES
        by = f", partition_by ({_INDEX})" if partitioned else ""
        return (
            f"copy ({query}) to {_text(folder)} (format parquet, compression zstd, file_size_bytes {size}{by}, "
            f"dictionary_size_limit {DICTIONARY_ENTRIES}, "
            f"field_ids {{{entries}}})"
        )

    def _run(self, statement: str) -> None:
        self.con.execute(statement).fetchall()

    def _copy_files(
        self,
        query: str,
        columns: Sequence[str],
        folder: Path,
        records: Sequence[Record | None],
        *,
        partitioned: bool = False,
    ) -> list[DataFile]:
        if not partitioned:
            folder.mkdir(parents=True, exist_ok=True)
        statement = self._statement(
            query, columns, folder / "files" if partitioned else folder, partitioned=partitioned
        )
        root = folder / "files" if partitioned else folder

        def record_of(path: Path) -> Record | None:
            return (
                records[int(path.parent.name.rpartition("=")[2])]
                if partitioned
                else next(iter(records), None)
            )

        if self._is_local:
            self._run(statement)
            found = (self._rename(path, record_of(path)) for path in sorted(root.rglob("*.parquet")))
            return [data_file for data_file in found if data_file is not None]
        with ThreadPoolExecutor(2 * UPLOADS + 1, thread_name_prefix="floe-publish") as pool:
            # Of many partitions many files grow at once: to follow some would keep finished ones waiting.
            return self._overlapped(pool, statement, root, record_of, 0 if partitioned else UPLOADS)

    def _overlapped(
        self, pool: ThreadPoolExecutor, statement: str, root: Path, record_of: Any, followed: int
    ) -> list[DataFile]:
        ended, abandoned = threading.Event(), threading.Event()

        def copy() -> None:
            self._run(statement)
            ended.set()

        copying: Future[None] = pool.submit(copy)
        uploads: dict[Path, Future[DataFile | None]] = {}
        following: list[Future[DataFile | None]] = []
        try:
            while True:
                is_done = copying.done()
                if is_done:
                    copying.result()
                # Listed after the look: what was finished before the end of COPY is not missed.
                for path in sorted(root.rglob("*.parquet")) if root.exists() else ():
                    if path in uploads:
                        continue
                    growing = Growing(path, ended, abandoned)
                    following = [upload for upload in following if not upload.done()]
                    if is_done or is_finished(path):
                        uploads[path] = pool.submit(self._send, growing, record_of(path))
                    elif len(following) < followed and _size(path) >= FOLLOWED_BYTES:
                        uploads[path] = pool.submit(self._send, growing, record_of(path), has_rows=True)
                        following.append(uploads[path])
                for uploading in uploads.values():
                    if uploading.done():
                        uploading.result()
                if is_done:
                    break
                wait([copying], timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            found = [uploads[path].result() for path in sorted(uploads)]
        except BaseException:
            self.con.interrupt()
            abandoned.set()
            for uploading in uploads.values():
                uploading.cancel()
            raise
        return [data_file for data_file in found if data_file is not None]

    def _send(self, growing: Growing, record: Record | None, *, has_rows: bool = False) -> DataFile | None:
        """Upload one file, which may still be written where it is known to have rows; None where it holds none."""
        path = growing.path
        if not has_rows and _is_empty(path):
            path.unlink()
            return None
        location = self._location(record)
        upload(growing.chunks, self.io, location, UPLOAD_ATTEMPTS)
        data_file = _data_file(path, location, self.metadata, record, self.layout)
        path.unlink()
        return data_file

    def _rename(self, path: Path, record: Record | None) -> DataFile | None:
        """Bring one finished file to its place in a folder; None where it holds no row."""
        if _is_empty(path):
            path.unlink()
            return None
        location = self._location(record)
        data_file = _data_file(path, location, self.metadata, record, self.layout)
        target = local_folder(location)
        assert target is not None
        move_atomically(path, target)
        return data_file

    def _location(self, record: Record | None) -> str:
        from pyiceberg.table.locations import load_location_provider

        provider = load_location_provider(self.metadata.location, self.metadata.properties)
        directory = ""
        if record is not None and len(record):
            directory = self.metadata.spec().partition_to_path(record, self.metadata.schema()) + "/"
        with self._names:
            name = f"{self.publication_id}-{len(self._begun):05d}.parquet"
            location: str = provider.new_data_location(f"{directory}{name}")
            self._begun.append(location)
        return location


class _Partitions:
    """The distinct partitions of a query, computed by Iceberg's own transforms inside DuckDB."""

    def __init__(self, con: duckdb.DuckDBPyConnection, metadata: TableMetadata, query: str) -> None:
        self.con = con
        self.metadata = metadata
        self.query = query
        self.records: list[Any] = []
        self._functions: list[str] = []
        self._expressions: list[str] = []
        self._table = f"floe_partitions_{id(self)}"

    def prepare(self) -> None:
        """Find the partitions.

        Raises:
            PublicationError: There are too many.
        """
        from pyiceberg.typedef import Record

        schema, spec = self.metadata.schema(), self.metadata.spec()
        sources = [schema.find_field(f.source_id) for f in spec.fields]
        for number, (partition, source) in enumerate(zip(spec.fields, sources, strict=True)):
            self._expressions.append(self._expression(number, partition.transform, source))
        named = ", ".join(f"{expression} as p{n}" for n, expression in enumerate(self._expressions))
        self.con.execute(
            f"create or replace temp table {self._table} as select row_number() over () - 1 as i, * from "
            f"(select distinct {named} from ({self.query}) limit {MAXIMUM_PARTITIONS + 1})"
        ).fetchall()
        rows = self.con.execute(f"select * exclude (i) from {self._table} order by i").fetchall()
        if len(rows) > MAXIMUM_PARTITIONS:
            raise PublicationError(
                f"{self.metadata.location.rpartition('/')[2]} would get more than {MAXIMUM_PARTITIONS:,} partitions in "
                "one publication; choose a coarser transforms[].table.partition_by, for example month(…) for day(…)"
            )
        self.records = [
            Record(
                *(
                    _internal(partition.transform, source.field_type, value)
                    for partition, source, value in zip(spec.fields, sources, row, strict=True)
                )
            )
            for row in rows
        ]

    def indexed_query(self) -> str:
        """Return the query with the number of its partition beside each row."""
        named = ", ".join(f"{expression} as __floe_p{n}" for n, expression in enumerate(self._expressions))
        hidden = ", ".join(f"__floe_p{n}" for n in range(len(self._expressions)))
        on = " and ".join(f"r.__floe_p{n} is not distinct from p.p{n}" for n in range(len(self._expressions)))
        return (
            f"select r.* exclude ({hidden}), p.i as {_INDEX} from (select *, {named} from ({self.query})) r "
            f"join {self._table} p on {on}"
        )

    def close(self) -> None:
        """Remove what was made inside DuckDB."""
        with contextlib.suppress(Exception):
            self.con.execute(f"drop table if exists {self._table}").fetchall()
        for name in self._functions:
            with contextlib.suppress(Exception):
                self.con.remove_function(name)

    def _expression(self, number: int, transform: Any, source: Any) -> str:
        from duckdb.func import FunctionNullHandling, PythonUDFType

        column = quoted(source.name)
        kind = str(transform)
        if kind == "identity":
            return column
        if kind == "void":
            return "null"
        name = f"floe_transform_{id(self)}_{number}"
        apply = transform.pyarrow_transform(source.field_type)

        def transformed(values: Any) -> Any:
            import pyarrow as pa

            if pa.types.is_timestamp(values.type) and values.type.tz:
                values = values.cast(pa.timestamp("us", tz="+00:00"))
            return apply(values)

        given, result = _duckdb_types(source.field_type, kind)
        self.con.create_function(
            name,
            transformed,
            [given],
            result,
            type=PythonUDFType.ARROW,
            null_handling=FunctionNullHandling.SPECIAL,
        )
        self._functions.append(name)
        return f"{name}({column})"


def _duckdb_types(iceberg: Any, transform: str) -> tuple[str, str]:
    from pyiceberg import types

    known: dict[type, str] = {
        types.IntegerType: "INTEGER",
        types.LongType: "BIGINT",
        types.StringType: "VARCHAR",
        types.BinaryType: "BLOB",
        types.DateType: "DATE",
        types.TimeType: "TIME",
        types.TimestampType: "TIMESTAMP",
        types.TimestamptzType: "TIMESTAMPTZ",
    }
    if isinstance(iceberg, types.DecimalType):
        given = f"DECIMAL({iceberg.precision},{iceberg.scale})"
    else:
        given = known[type(iceberg)]
    return given, given if transform.startswith("truncate") else "INTEGER"


def _internal(transform: Any, iceberg: Any, value: Any) -> Any:
    if value is None or str(transform) != "identity":
        return value
    return partition_value(iceberg, value)


def _data_file(
    path: Path,
    location: str,
    metadata: TableMetadata,
    record: Record | None,
    layout: TableLayout,
) -> DataFile:
    import pyarrow.parquet as pq
    from pyiceberg.io.pyarrow import (
        compute_statistics_plan,
        data_file_statistics_from_parquet_metadata,
        parquet_path_to_id_mapping,
    )
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
    from pyiceberg.typedef import Record

    schema = metadata.schema()
    statistics = data_file_statistics_from_parquet_metadata(
        parquet_metadata=pq.read_metadata(path),
        stats_columns=compute_statistics_plan(schema, metadata.properties),
        parquet_column_mapping=parquet_path_to_id_mapping(schema),
    )
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=location,
        file_format=FileFormat.PARQUET,
        partition=record if record is not None else Record(),
        file_size_in_bytes=path.stat().st_size,
        sort_order_id=metadata.default_sort_order_id if layout.sort_by else None,
        spec_id=metadata.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        # A COPY that fails takes its files away.
        return 0


def _is_empty(path: Path) -> bool:
    """Tell whether a finished file holds no row: DuckDB leaves one such per idle thread."""
    import pyarrow.parquet as pq

    return bool(pq.read_metadata(path).num_rows == 0)


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
