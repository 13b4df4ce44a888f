"""Which rows and files of a table a publication changes: upserts by key, and increments.

Iceberg's data files are immutable: a row that changes or goes makes its file be written again without it, and the
others stay as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from floe_dagster.iceberg.keys import check_key
from floe_dagster.iceberg.reading import read_tasks
from floe_dagster.iceberg.types import ColumnType, quoted

if TYPE_CHECKING:
    import duckdb
    from pyiceberg.io import FileIO
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import FileScanTask, Table
    from pyiceberg.table.metadata import TableMetadata

    from floe_dagster.iceberg.staging import Staging

BEFORE_SCHEMA = "floe_internal"
"""Schema of the DuckDB file that holds, between dbt's start and the publication, what stood before."""


def any_row(con: duckdb.DuckDBPyConnection, projection: str, condition: str) -> bool:
    """Tell whether a relation has a row.

    Args:
        con: A DuckDB connection.
        projection: SQL for its rows.
        condition: What follows `from`.
    """
    return bool(con.execute(f"select 1 from ({projection}) {condition} limit 1").fetchall())


def row_hash(columns: Sequence[str]) -> str:
    """Return SQL for 128 bits that identify a row's content, null and text told apart."""
    packed = ", ".join(f"{quoted(name)} := {quoted(name)}" for name in columns)
    return f"md5_number(to_json(struct_pack({packed}))::varchar)"


@dataclass(frozen=True, slots=True)
class Changes:
    """What a publication does to the files of a table.

    Args:
        replaced: Files that go.
        rewritten: Rows that stayed and were written again.
        inserted: Rows that are new or changed.
        deleted: Rows that are gone or changed.
    """

    replaced: tuple[DataFile, ...]
    rewritten: int
    inserted: int
    deleted: int


class TableRows:
    """The rows of a table as it stands, beside a relation in DuckDB.

    Args:
        con: A DuckDB connection of its own.
        table: The table as it stands.
        metadata: As it will be.
        io: Of the table.
        projection: SQL for the relation's columns, cast as they are published, and nothing else.
        columns: Their names and types.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        table: Table,
        metadata: TableMetadata,
        io: FileIO,
        projection: str,
        columns: Sequence[tuple[str, ColumnType]],
    ) -> None:
        self.con = con
        self.table = table
        self.metadata = metadata
        self.io = io
        self.projection = projection
        self.names = [name for name, _kind in columns]
        # Rows of the table may have more columns than the relation, which come back as they were.
        self.all_names = [column.name for column in metadata.schema().fields]
        self._made: list[str] = []

    def upsert(self, staging: Staging, key: Sequence[str], full_name: str) -> Changes:
        """Stage the rows of the relation in place of those with the same key.

        Raises:
            PublicationError: A key is null or not unique in the relation.
        """
        check_key(key, self.names, full_name, partial(any_row, self.con, self.projection))
        keys = ", ".join(quoted(name) for name in key)
        source, existing, changed = (
            self._temporary("source"),
            self._temporary("existing"),
            self._temporary("changed"),
        )
        self._execute(
            f"create temp table {source} as select {keys}, {row_hash(self.names)} as h from ({self.projection})"
        )
        tasks = self._overlapping(source, key[0])
        self._execute(f"create temp table {existing} as select 0 as f, * from {source} limit 0")
        for number, task in enumerate(tasks):
            with self._registered([task]) as rows:
                self._execute(
                    f"insert into {existing} select {number}, {keys}, {row_hash(self.names)} from {rows} "
                    f"semi join {source} using ({keys})"
                )
        # A key that the table has more than once (somebody else's doing) is brought to one row.
        self._execute(
            f"create temp table {changed} as select {keys} from {source} s where not exists (select 1 from {existing} e "
            f"where {self._equal('s', 'e', key)} and e.h = s.h) or (select count(*) from {existing} e where "
            f"{self._equal('s', 'e', key)}) > 1"
        )
        affected = self._column(
            f"select distinct f from {existing} semi join {changed} using ({keys}) order by f"
        )
        deleted = self._number(f"select count(*) from {existing} semi join {changed} using ({keys})")
        rewritten = 0
        for number in affected:
            with self._registered([tasks[number]]) as rows:
                query = f"select * from {rows} anti join {changed} using ({keys})"
                rewritten += sum(
                    file.record_count for file in staging.write(query, self.all_names, once=True)
                )
        inserted = self._number(f"select count(*) from {changed}")
        if inserted:
            staging.write(f"select * from ({self.projection}) semi join {changed} using ({keys})", self.names)
        return Changes(tuple(tasks[number].file for number in affected), rewritten, inserted, deleted)

    def increment(self, staging: Staging, before: str, hint: Sequence[str]) -> Changes | None:
        """Stage what has changed since `before`, which equals the table.

        Args:
            staging: Where files are written.
            before: Relation with the hash `h` of each row that stood.
            hint: Columns of the model's unique key: files whose range of the first one overlaps with what changed
                are looked into first.

        Returns:
            None where the table does not hold what `before` says: then all of it has to be replaced.
        """
        gone, new = self._temporary("gone"), self._temporary("new")
        hashed = f"select *, {row_hash(self.names)} as __floe_hash from ({self.projection})"
        counts = "select h, count(*) as n from {} group by h"
        self._execute(
            f"create temp table {gone} as select b.h, b.n - coalesce(a.n, 0) as n from ({counts.format(before)}) b "
            f"left join (select __floe_hash as h, count(*) as n from ({hashed}) group by 1) a using (h) "
            "where b.n > coalesce(a.n, 0)"
        )
        self._execute(
            f"create temp table {new} as select a.h, coalesce(b.n, 0) as n from (select __floe_hash as h, count(*) as n "
            f"from ({hashed}) group by 1) a left join ({counts.format(before)}) b using (h) where a.n > coalesce(b.n, 0)"
        )
        deleted = self._number(f"select coalesce(sum(n), 0) from {gone}")
        added = (
            f"select {', '.join(quoted(n) for n in self.names)} from ({hashed}) r join {new} n on r.__floe_hash = n.h "
            "qualify row_number() over (partition by r.__floe_hash) > n.n"
        )
        replaced: list[DataFile] = []
        rewritten = 0
        if deleted:
            found = self._files_of(gone, deleted, added, hint)
            if found is None:
                return None
            for task, taken in found:
                with self._registered([task]) as rows:
                    query = (
                        f"select {', '.join(quoted(n) for n in self.all_names)} from (select *, {row_hash(self.names)} as "
                        f"__floe_hash from {rows}) r left join {taken} t on r.__floe_hash = t.h "
                        "qualify t.h is null or row_number() over (partition by r.__floe_hash) > t.n"
                    )
                    rewritten += sum(
                        file.record_count for file in staging.write(query, self.all_names, once=True)
                    )
                replaced.append(task.file)
        inserted = 0
        if self._number(f"select count(*) from {new}"):
            inserted = sum(file.record_count for file in staging.write(added, self.names))
        return Changes(tuple(replaced), rewritten, inserted, int(deleted))

    def close(self) -> None:
        """Remove the temporary tables."""
        for name in self._made:
            with contextlib.suppress(Exception):
                self._execute(f"drop table if exists {name}")

    def _files_of(
        self, gone: str, missing: int, added: str, hint: Sequence[str]
    ) -> list[tuple[FileScanTask, str]] | None:
        """Find the files that hold the rows of `gone`, and how many of each to take from each file."""
        tasks = list(self.table.scan().plan_files())
        tasks.sort(key=lambda task: task.file.file_path)
        if hint and hint[0] in self.names:
            likely = {task.file.file_path for task in self._overlapping(f"({added})", hint[0])}
            tasks.sort(key=lambda task: task.file.file_path not in likely)
        found: list[tuple[FileScanTask, str]] = []
        for task in tasks:
            if missing <= 0:
                break
            taken = self._temporary("taken")
            with self._registered([task]) as rows:
                self._execute(
                    f"create temp table {taken} as select g.h, least(g.n, r.n) as n from {gone} g join (select "
                    f"{row_hash(self.names)} as h, count(*) as n from {rows} group by 1) r using (h) where g.n > 0"
                )
            count = self._number(f"select coalesce(sum(n), 0) from {taken}")
            if count:
                self._execute(f"update {gone} g set n = g.n - t.n from {taken} t where g.h = t.h")
                found.append((task, taken))
                missing -= count
        return found if missing == 0 else None

    def _overlapping(self, source: str, column: str) -> list[FileScanTask]:
        from pyiceberg.expressions import AlwaysTrue, And, GreaterThanOrEqual, LessThanOrEqual

        row = self.con.execute(
            f"select min({quoted(column)}), max({quoted(column)}) from {source}"
        ).fetchall()[0]
        if row[0] is None:
            return []
        condition: Any = AlwaysTrue()
        if isinstance(row[0], int | str) and not isinstance(row[0], bool):
            with contextlib.suppress(Exception):
                condition = And(
                    GreaterThanOrEqual(term=column, value=row[0]), LessThanOrEqual(term=column, value=row[1])
                )
        return sorted(
            # A column may get its name in another case in this very commit.
            self.table.scan(row_filter=condition, case_sensitive=False).plan_files(),
            key=lambda task: str(task.file.file_path),
        )

    def _equal(self, left: str, right: str, key: Sequence[str]) -> str:
        return " and ".join(f"{left}.{quoted(name)} = {right}.{quoted(name)}" for name in key)

    @contextlib.contextmanager
    def _registered(self, tasks: list[FileScanTask]) -> Iterator[str]:
        name = f"floe_rows_{id(self)}_{len(self._made)}"
        self.con.register(name, read_tasks(self.metadata, self.io, tasks))
        try:
            yield name
        finally:
            self.con.unregister(name)

    def _temporary(self, what: str) -> str:
        name = f"floe_{what}_{id(self)}_{len(self._made)}"
        self._made.append(name)
        return name

    def _execute(self, sql: str) -> None:
        self.con.execute(sql).fetchall()

    def _number(self, sql: str) -> int:
        return int(self.con.execute(sql).fetchall()[0][0])

    def _column(self, sql: str) -> list[int]:
        return [int(row[0]) for row in self.con.execute(sql).fetchall()]
