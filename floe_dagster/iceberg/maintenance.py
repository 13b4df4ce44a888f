"""The later life of tables: rows that expire, small files, old snapshots, orphans, tables that nobody publishes.

Everything can be previewed. Nothing that a snapshot still needs is ever removed: what is removed is computed from the
table's own metadata, read after the files were listed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floe_dagster.iceberg.batches import batches_property
from floe_dagster.iceberg.commit import (
    ATTEMPTS,
    PUBLICATION_ID,
    UnknownOutcomeError,
    commit,
    find_snapshot,
    is_conflict,
    pause,
)
from floe_dagster.iceberg.errors import CatalogError, PublicationError
from floe_dagster.iceberg.files import comparable, list_files, reachable_files, remove_files
from floe_dagster.iceberg.layout import TableLayout
from floe_dagster.iceberg.reading import read_tasks
from floe_dagster.iceberg.staging import Staging
from floe_dagster.iceberg.types import quoted
from floe_dagster.memory import duckdb_memory_limit
from floe_dagster.schemas.table_layout import SortField

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

MAINTENANCE = "floe.maintenance"
"""Snapshot property: `compaction` (same rows, other files) or `expiry` (rows are gone)."""
SHORTEST_ORPHAN_AGE = timedelta(hours=24)
DEFAULT_ORPHAN_AGE = timedelta(hours=72)
SMALL_FILE_BYTES = 16 << 20
SMALL_FILES_AT_LEAST = 5


@dataclass(frozen=True, slots=True)
class Rules:
    """What governs the life of a product's tables.

    Args:
        retention_days: Data, and snapshots, are kept so long at least.
        ttl_hours: Rows are expired after so long; None: they never are.
        keep_last: So many snapshots are kept at least.
        orphan_age: Files that no snapshot names are removed when older.
    """

    retention_days: int | None = None
    ttl_hours: int | None = None
    keep_last: int | None = None
    orphan_age: timedelta = DEFAULT_ORPHAN_AGE

    def row_age(self) -> timedelta | None:
        """Return the age at which a row goes: its time to live, though never less than the retention."""
        if self.ttl_hours is None:
            return None
        return max(timedelta(hours=self.ttl_hours), timedelta(days=self.retention_days or 0))

    def snapshot_age(self) -> timedelta:
        """Return the age below which a snapshot stays, however many there are."""
        return timedelta(days=self.retention_days or 0)


@dataclass(slots=True)
class TableReport:
    """What maintenance did with one table, or would do.

    Args:
        table: `namespace.table`.
        dry_run: Nothing was done.
        rows_deleted: Rows that had expired.
        files_before: Data files of the current snapshot before.
        files_after: And after.
        files_compacted: Small files that became fewer.
        snapshots_expired: Snapshots that went.
        orphans_removed: Files that no snapshot named.
        bytes_freed: Bytes of the files that were removed.
        not_removed: Files that could not be removed; the next maintenance finds them.
        notes: For people.
    """

    table: str
    dry_run: bool
    rows_deleted: int = 0
    files_before: int = 0
    files_after: int = 0
    files_compacted: int = 0
    snapshots_expired: int = 0
    orphans_removed: int = 0
    bytes_freed: int = 0
    not_removed: int = 0
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


class TableMaintenance:
    """Maintains one table.

    Args:
        catalog: From `open_catalog`.
        namespace: Of the table.
        table: Its name.
        rules: What governs it.
        dry_run: Only look.
        expire_by: Column with the time of a row; None: rows are not expired.
        scratch: Local folder for files on their way.
        now: The time that ages are counted from.
        small_file_bytes: Data files below it are small.
    """

    def __init__(
        self,
        catalog: Catalog,
        namespace: str,
        table: str,
        rules: Rules,
        *,
        dry_run: bool = False,
        expire_by: str | None = None,
        scratch: Path | None = None,
        now: datetime | None = None,
        small_file_bytes: int = SMALL_FILE_BYTES,
    ) -> None:
        self.catalog = catalog
        self.identifier = (namespace, table)
        self.rules = rules
        self.dry_run = dry_run
        self.expire_by = expire_by
        self.scratch = scratch
        self.now = now or datetime.now(UTC)
        self.small_file_bytes = small_file_bytes
        self.report = TableReport(f"{namespace}.{table}", dry_run)

    def run(self) -> TableReport:
        """Expire rows, compact, expire snapshots, remove orphans, in this order: each makes work for the next.

        Raises:
            CatalogError: Catalog or storage do not answer; what was done before stands.
        """
        from floe_dagster.iceberg.errors import catalog_error

        try:
            self.report.files_before = self._live_files(self._load())
            self.expire_rows()
            self.compact()
            self.expire_snapshots()
            self.remove_orphans()
            if not self.dry_run:
                self.report.files_after = self._live_files(self._load())
        except Exception as error:
            raise catalog_error(error, f"{self.report.table} could not be maintained") from error
        return self.report

    def expire_rows(self) -> None:
        """Delete the rows that have expired: whole files go, others are written again without them."""
        age = self.rules.row_age()
        if age is None or self.expire_by is None:
            return
        cutoff = self.now - age
        self._rewrite("expiry", lambda table, staging: self._without_expired(table, staging, cutoff))

    def compact(self) -> None:
        """Write small files of a partition together, where there are `SMALL_FILES_AT_LEAST`."""
        self._rewrite("compaction", self._compacted)

    def expire_snapshots(self) -> None:
        """Expire snapshots beyond `keep_last` that are old enough, and remove the files that only they named."""
        if self.rules.keep_last is None:
            return
        table = self._load()
        expired = self._expirable(table)
        self.report.snapshots_expired = len(expired)
        if not expired:
            return
        before = reachable_files(table.metadata, table.metadata_location, table.io)
        if self.dry_run:
            kept = table.metadata.model_copy(
                update={"snapshots": [s for s in table.metadata.snapshots if s.snapshot_id not in expired]}
            )
            after = reachable_files(kept, table.metadata_location, table.io)
            self.report.bytes_freed += sum(size for file, size in before.items() if file not in after)
            return
        for attempt in range(ATTEMPTS):
            try:
                table.maintenance.expire_snapshots().by_ids(list(expired)).commit()
                break
            except Exception as error:
                if not is_conflict(error) or attempt == ATTEMPTS - 1:
                    raise
                pause(attempt)
                table = self._load()
                expired = self._expirable(table)
        table = self._load()
        after = reachable_files(table.metadata, table.metadata_location, table.io)
        location = comparable(table.location()).rstrip("/") + "/"
        gone = {
            file: size for file, size in before.items() if file not in after and file.startswith(location)
        }
        failed = set(remove_files(gone, table.io))
        self.report.not_removed += len(failed)
        self.report.bytes_freed += sum(size for file, size in gone.items() if file not in failed)

    def remove_orphans(self) -> None:
        """Remove old files at the table's place that nothing names: leftovers of runs that died.

        Raises:
            ValueError: The age is below `SHORTEST_ORPHAN_AGE`: a publication that runs would lose its files.
        """
        if self.rules.orphan_age < SHORTEST_ORPHAN_AGE:
            raise ValueError(f"orphans are removed at an age of {SHORTEST_ORPHAN_AGE} or more")
        table = self._load()
        if self._holds_others(table):
            self.report.notes.append("another table lies inside its folder: orphans are not looked for")
            return
        listed = list_files(table.location(), table.io)
        # Read after the listing: what was committed meanwhile is named here.
        table = self._load()
        needed = reachable_files(table.metadata, table.metadata_location, table.io)
        before = self.now - self.rules.orphan_age
        orphans = [
            file
            for file in listed
            if file.location not in needed
            and file.modified < before
            and not file.location.endswith("/version-hint.text")
        ]
        self.report.orphans_removed = len(orphans)
        if self.dry_run:
            self.report.bytes_freed += sum(file.size for file in orphans)
            return
        failed = set(remove_files([file.uri for file in orphans], table.io))
        self.report.not_removed += len(failed)
        self.report.orphans_removed -= len(failed)
        self.report.bytes_freed += sum(file.size for file in orphans if file.uri not in failed)

    def _load(self) -> Table:
        return self.catalog.load_table(self.identifier)

    def _live_files(self, table: Table) -> int:
        return sum(1 for _task in table.scan().plan_files())

    def _holds_others(self, table: Table) -> bool:
        own = comparable(table.location()).rstrip("/") + "/"
        for identifier in self.catalog.list_tables(self.identifier[0]):
            if identifier[-1] == self.identifier[1]:
                continue
            try:
                other = comparable(self.catalog.load_table(identifier).location())
            except Exception:
                continue
            if other.startswith(own):
                return True
        return False

    def _rewrite(
        self, kind: str, plan: Callable[[Table, Staging], tuple[list[Any], dict[str, int]] | None]
    ) -> None:
        """Replace files in one snapshot; plan again after a conflict."""
        identity = uuid.uuid4().hex
        unknown = False
        for attempt in range(ATTEMPTS):
            table = self._load()
            if attempt and find_snapshot(table, {PUBLICATION_ID: identity}) is not None:
                return
            if table.metadata.current_snapshot_id is None:
                return
            import duckdb

            from floe_dagster.iceberg.overwriting import overwrite

            with duckdb.connect() as con:
                if (limit := duckdb_memory_limit(None)) is not None:
                    con.execute(f"set memory_limit = '{limit}'")
                if self.scratch is not None:
                    self.scratch.mkdir(parents=True, exist_ok=True)
                    con.execute("set temp_directory = $1", [str(self.scratch / f"duckdb-{identity}")])
                staging = Staging(con, table.io, table.metadata, _layout(table), identity, self.scratch)
                transaction = table.transaction()
                try:
                    planned = plan(table, staging)
                    if planned is None:
                        return
                    replaced, counts = planned
                    for name, value in counts.items():
                        setattr(self.report, name, value)
                    if self.dry_run:
                        return
                    properties = {**batches_property(table), MAINTENANCE: kind, PUBLICATION_ID: identity}
                    with overwrite(transaction.update_snapshot(snapshot_properties=properties)) as snapshot:
                        for data_file in replaced:
                            snapshot.delete_data_file(data_file)
                        for data_file in staging.files:
                            snapshot.append_data_file(data_file)
                    commit(transaction)
                    return
                except Exception as error:
                    is_unknown = isinstance(error, UnknownOutcomeError)
                    unknown = unknown or is_unknown
                    if not unknown:
                        staging.discard()
                    if attempt == ATTEMPTS - 1 or not (is_unknown or is_conflict(error)):
                        raise
            pause(attempt)

    def _without_expired(
        self, table: Table, staging: Staging, cutoff: datetime
    ) -> tuple[list[Any], dict[str, int]] | None:
        from pyiceberg.expressions import LessThan
        from pyiceberg.types import DateType, TimestampType, TimestamptzType

        column = self.expire_by
        assert column is not None
        found = next((c for c in table.schema().fields if c.name == column), None)
        if found is None or not isinstance(found.field_type, DateType | TimestampType | TimestamptzType):
            kind = f"is {found.field_type}" if found else "does not exist"
            raise PublicationError(
                f"{self.report.table}: transforms[].table.expire_by names {column!r}, which {kind}; it has to be a date or "
                "a timestamp"
            )
        if isinstance(found.field_type, DateType):
            value, literal = cutoff.date().isoformat(), f"date '{cutoff.date().isoformat()}'"
        elif isinstance(found.field_type, TimestampType):
            value = cutoff.replace(tzinfo=None).isoformat(timespec="microseconds")
            literal = f"timestamp '{value}'"
        else:
            value = cutoff.isoformat(timespec="microseconds")
            literal = f"timestamptz '{value}'"
        tasks = list(table.scan(row_filter=LessThan(term=column, value=value)).plan_files())
        names = [c.name for c in table.schema().fields]
        replaced, deleted = [], 0
        for task in tasks:
            staging.con.register("floe_rows", read_tasks(table.metadata, table.io, [task], [column]))
            total, gone = staging.con.execute(
                f"select count(*), count(*) filter (where {quoted(column)} < {literal}) from floe_rows"
            ).fetchall()[0]
            staging.con.unregister("floe_rows")
            if not gone:
                continue
            deleted += int(gone)
            replaced.append(task.file)
            if gone < total and not self.dry_run:
                staging.con.register("floe_rows", read_tasks(table.metadata, table.io, [task]))
                keep = f"({quoted(column)} < {literal}) is not true"
                staging.write(f"select * from floe_rows where {keep}", names, once=True)
                staging.con.unregister("floe_rows")
        if not replaced:
            return None
        return replaced, {"rows_deleted": deleted}

    def _compacted(self, table: Table, staging: Staging) -> tuple[list[Any], dict[str, int]] | None:
        groups: dict[Any, list[Any]] = {}
        for task in table.scan().plan_files():
            # A file that rows were deleted from gains by being written again, whatever its size.
            if task.file.file_size_in_bytes < self.small_file_bytes or task.delete_files:
                groups.setdefault((task.file.spec_id, str(task.file.partition)), []).append(task)
        chosen = [task for tasks in groups.values() if len(tasks) >= SMALL_FILES_AT_LEAST for task in tasks]
        if not chosen:
            return None
        if not self.dry_run:
            names = [column.name for column in table.schema().fields]
            staging.con.register("floe_rows", read_tasks(table.metadata, table.io, chosen))
            staging.write("select * from floe_rows", names, once=True)
            staging.con.unregister("floe_rows")
        return [task.file for task in chosen], {"files_compacted": len(chosen)}

    def _expirable(self, table: Table) -> set[int]:
        metadata = table.metadata
        protected = {reference.snapshot_id for reference in metadata.refs.values()}
        oldest_kept = (self.now - self.rules.snapshot_age()).timestamp() * 1000
        newest_first = sorted(
            metadata.snapshots, key=lambda s: (s.timestamp_ms, s.sequence_number or 0), reverse=True
        )
        return {
            snapshot.snapshot_id
            for snapshot in newest_first[self.rules.keep_last or 1 :]
            if snapshot.snapshot_id not in protected and snapshot.timestamp_ms < oldest_kept
        }


def same_content(table: Table, snapshot_id: int | None) -> bool:
    """Tell whether the current snapshot holds the rows of an earlier one: compaction alone lies between."""
    current = table.current_snapshot()
    while current is not None:
        if current.snapshot_id == snapshot_id:
            return True
        properties = current.summary.additional_properties if current.summary else {}
        if properties.get(MAINTENANCE) != "compaction" or current.parent_snapshot_id is None:
            return False
        current = table.metadata.snapshot_by_id(current.parent_snapshot_id)
    return False


def retired_tables(catalog: Catalog, namespace: str, published: set[str]) -> list[dict[str, Any]]:
    """Return the tables of a namespace that no model publishes any more.

    Args:
        catalog: From `open_catalog`.
        namespace: Of the product.
        published: Names of the tables that its models publish.

    Returns:
        Name, location, rows, bytes and time of the last snapshot (ISO 8601, UTC) of each.
    """
    if not catalog.namespace_exists(namespace):
        return []
    retired = []
    for identifier in catalog.list_tables(namespace):
        name = identifier[-1]
        if name in published:
            continue
        table = catalog.load_table(identifier)
        snapshot = table.current_snapshot()
        properties = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
        written = datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC) if snapshot else None
        retired.append(
            {
                "table": name,
                "location": table.location(),
                "rows": int(properties.get("total-records") or 0),
                "bytes": int(properties.get("total-files-size") or 0),
                "last_published": written.isoformat(timespec="seconds") if written else None,
                "product": table.metadata.properties.get("floe.product"),
            }
        )
    return retired


def drop_retired(catalog: Catalog, namespace: str, table: str, product: str) -> Mapping[str, int]:
    """Drop a table that nobody publishes any more, and remove its files.

    Args:
        catalog: From `open_catalog`.
        namespace: Of the product.
        table: Name.
        product: The table has to belong to it (`floe.product`).

    Raises:
        CatalogError: It belongs to somebody else, or the catalog refuses.
    """
    loaded = catalog.load_table((namespace, table))
    owner = loaded.metadata.properties.get("floe.product")
    if owner != product:
        raise CatalogError(
            f"{namespace}.{table} belongs to {owner or 'nobody that is known'}, not to {product}: it is not dropped"
        )
    location = comparable(loaded.location()).rstrip("/") + "/"
    files = {
        file: size
        for file, size in reachable_files(loaded.metadata, loaded.metadata_location, loaded.io).items()
        if file.startswith(location)
    }
    catalog.drop_table((namespace, table))
    failed = remove_files(files, loaded.io)
    return {"files": len(files) - len(failed), "bytes": sum(files.values()), "not_removed": len(failed)}


def _layout(table: Table) -> TableLayout:
    """Return the sort order that the table has, for what is written again."""
    metadata = table.metadata
    order = next((o for o in metadata.sort_orders if o.order_id == metadata.default_sort_order_id), None)
    fields = []
    for entry in order.fields if order else ():
        if str(entry.transform) != "identity":
            break
        fields.append(
            SortField(
                metadata.schema().find_column_name(entry.source_id) or "",
                str(entry.direction).lower().endswith("desc"),
                "first" in str(entry.null_order).lower(),
            )
        )
    return TableLayout(sort_by=tuple(fields) or None)
