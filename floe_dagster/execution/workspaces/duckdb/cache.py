"""The DuckDB file as a cache of what Iceberg holds."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from floe_dagster.atomic import write_atomically
from floe_dagster.execution.workspaces.unjudged import Unjudged
from floe_dagster.iceberg.changes import BEFORE_SCHEMA, row_hash
from floe_dagster.iceberg.errors import CatalogError, PublicationError, is_remote_failure
from floe_dagster.iceberg.maintenance import same_content
from floe_dagster.iceberg.relation import RelationName, projection, relation_columns
from floe_dagster.iceberg.restore import restore_relation
from floe_dagster.schemas.product_index import Asset

if TYPE_CHECKING:
    import duckdb
    from pyiceberg.catalog import Catalog

KEPT_SCHEMA = "floe_kept"
"""Schema of the DuckDB file that holds, of stateful models without a published table, the rows that last passed their tests."""


@dataclass(frozen=True, slots=True)
class Before:
    """The rows of a stateful model before dbt extended it.

    Args:
        relation: Holds a hash `h` for each row.
        columns: Names and types that went into the hashes.
    """

    relation: RelationName
    columns: tuple[tuple[str, str], ...]


class DuckDBCache:
    """Knows which relations stand in the DuckDB file and which Iceberg snapshot each stateful one equals.

    Args:
        file: The DuckDB file; it may be missing.
        engine: What the assets call the engine that builds in it.
        memory_limit: DuckDB's; its own default when None.
    """

    def __init__(self, file: Path, engine: str, memory_limit: str | None = None) -> None:
        self.file = file
        self.engine = engine
        self.memory_limit = memory_limit
        self._record = file.with_suffix(".snapshots.json")
        self.unjudged = Unjudged(file.with_suffix(".unjudged.json"))

    def open(self, *, read_only: bool = False, folders: Sequence[Path] = ()) -> duckdb.DuckDBPyConnection:
        """Return a connection to the file, within the limit of memory.

        A relation may be a view, and this process has the platform's credentials: what DuckDB executes here reads and
        writes nothing outside of the file.

        Args:
            read_only: Whether nothing is written to the file.
            folders: What may be read and written besides.
        """
        import duckdb

        con = duckdb.connect(str(self.file), read_only=read_only)
        if self.memory_limit is not None:
            con.execute(f"set memory_limit = '{self.memory_limit}'")
        # Nothing is asked with a function: a macro in the product's own file may have its name. Connections of one process to
        # one file share their settings, and those of an earlier one cannot be changed.
        with suppress(duckdb.InvalidInputException):
            con.execute("set allowed_directories = ?", [[str(folder) for folder in folders]])
        con.execute("set enable_external_access = false")
        return con

    def relations(self) -> set[tuple[str, str]]:
        """Return schema and name of every relation in the file, in lower case."""
        if not self.file.exists():
            return set()
        with self.open(read_only=True) as con:
            rows = con.execute("select table_schema, table_name from information_schema.tables").fetchall()
        return {(schema.lower(), name.lower()) for schema, name in rows}

    def missing(
        self,
        assets: Mapping[str, Asset],
        wanted: set[str],
        read: set[str],
        restorable: Callable[[str], bool],
    ) -> tuple[set[str], set[str]]:
        """Find the ancestors of `wanted` whose relation is not there, or may not be what another engine published.

        Args:
            assets: By unique id.
            wanted: Ids of what dbt is about to build.
            read: Ids of what is read besides.
            restorable: Whether an asset's content has to come from Iceberg, because building it again would
                not give what is published.

        Returns:
            Ids of those to build as well, and of those to restore.
        """
        present, unjudged = self.relations(), self.unjudged.keys()
        changing = set(wanted)
        while True:
            # A view that shows what is built now has other rows than those that have passed.
            stale = unjudged | (changing - wanted) | views_of(assets, changing)
            build, restore = self._closure(assets, wanted, read, restorable, present, stale)
            if build <= changing:
                return build, restore
            changing |= build

    def _closure(
        self,
        assets: Mapping[str, Asset],
        wanted: set[str],
        read: set[str],
        restorable: Callable[[str], bool],
        present: set[tuple[str, str]],
        stale: set[str],
    ) -> tuple[set[str], set[str]]:
        build: set[str] = set()
        restore: set[str] = set()
        pending = [*read, *(up for key in wanted for up in assets[key].deps)]
        while pending:
            key = pending.pop()
            if key in wanted or key in build or key in restore:
                continue
            if assets[key].is_foreign(self.engine):
                restore.add(key)
            elif assets[key].place in present and key not in stale:
                continue
            elif restorable(key):
                restore.add(key)
            else:
                build.add(key)
                pending += assets[key].deps
        return build, restore

    def restore(
        self, assets: Sequence[Asset], catalog: Catalog, namespace: str, log: logging.Logger
    ) -> dict[str, str]:
        """Bring stateful models that dbt is about to extend, and tables of other engines, to what Iceberg holds.

        A relation that is missing, that another machine's run has overtaken, or whose last increment was
        withheld, is replaced by the table's current snapshot. Where there is no table, a stateful model begins anew if what
        stands in the file has not passed its tests, or is the part of a build that did not end.

        Args:
            assets: Those that dbt is about to build, or to read.
            catalog: From `open_catalog`.
            namespace: Of the product.
            log: Takes what people read.

        Returns:
            Why an asset could not be brought there, by unique id: dbt must not extend it.
        """
        present, unjudged = self.relations(), self.unjudged.keys()
        refused: dict[str, str] = {}
        for asset in assets:
            is_foreign = asset.is_foreign(self.engine)
            if not (asset.is_stateful or is_foreign):
                continue
            is_own = asset.place in present and not is_foreign
            if not asset.published:
                if is_own:
                    self._keep_or_bring_back(asset, asset.id in unjudged, log)
                continue
            try:
                if catalog.table_exists(asset.identifier(namespace)):
                    self._bring(asset, catalog, namespace, log, is_present=asset.place in present)
                elif is_own and asset.id in unjudged:
                    with self.open() as con:
                        _drop(con, RelationName(*asset.relation))
                    log.info(
                        f"{asset.name} begins anew: what the last run built did not pass, or was not finished"
                    )
            except Exception as error:
                if _concerns_all(error):
                    raise
                # Its files are gone, and its rows are all here: the publication makes the table again, or says why not.
                is_whole = is_own and self._snapshots().get(asset.name) is not None
                if not (is_whole and isinstance(error, FileNotFoundError)):
                    refused[asset.id] = (
                        f"what is published of it cannot be read ({error}). Restore its files; or run with --full-refresh, which "
                        "builds it from nothing"
                    )
        return refused

    def begin_anew(self, assets: Sequence[Asset]) -> None:
        """Drop what stands of stateful models, so that dbt builds them from nothing.

        Args:
            assets: Those that dbt is about to build.
        """
        present = self.relations()
        with self.open() as con:
            for asset in assets:
                if asset.place in present:
                    _drop(con, RelationName(*asset.relation))

    def _bring(
        self, asset: Asset, catalog: Catalog, namespace: str, log: logging.Logger, *, is_present: bool
    ) -> None:
        """Bring one relation to its table's current snapshot."""
        known = self._snapshots()
        table = catalog.load_table(asset.identifier(namespace))
        snapshot = table.current_snapshot()
        current = snapshot.snapshot_id if snapshot else None
        # A compaction has changed the files, not the rows.
        if is_present and (known.get(asset.name) == current or same_content(table, known.get(asset.name))):
            return
        relation = RelationName(*asset.relation)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.open() as con:
            _drop(con, relation)
            if snapshot is None:
                return
            rows = restore_relation(con, relation, catalog=catalog, namespace=namespace, table=asset.name)
        self.remember({asset.name: current})
        log.info(f"restored {asset.name} from Iceberg: {rows:,} rows, snapshot {current}")

    def _keep_or_bring_back(self, asset: Asset, is_unjudged: bool, log: logging.Logger) -> None:
        """Keep the rows of a stateful model that no table holds, or bring those back that were kept."""
        relation = RelationName(*asset.relation)
        kept = RelationName(relation.database, KEPT_SCHEMA, f"{relation.schema}.{relation.identifier}")
        with self.open() as con:
            con.execute(f"create schema if not exists {kept.schema_sql()}")
            if not is_unjudged:
                con.execute(
                    f"create or replace table {kept.sql()} as select * from {relation.sql()}"
                ).fetchall()
                return
            con.execute("begin")
            _drop(con, relation)
            if _kind(con, kept) is None:
                how = "begins anew"
            else:
                con.execute(f"create table {relation.sql()} as select * from {kept.sql()}").fetchall()
                how = "goes on with the rows that last passed"
            con.execute("commit")
        log.info(f"{asset.name} {how}: what the last run built did not pass, or was not finished")

    def note_before(self, assets: Sequence[Asset]) -> dict[str, Before]:
        """Note the rows of stateful models before dbt extends them, so that only what changes is published.

        Args:
            assets: Those that dbt is about to build; only those that equal a snapshot are noted.

        Returns:
            What was noted, by the asset's unique id.
        """
        noted: dict[str, Before] = {}
        if not self.file.exists():
            return noted
        present, known = self.relations(), self._snapshots()
        with self.open() as con:
            con.execute(f"drop schema if exists {BEFORE_SCHEMA} cascade")
            for asset in assets:
                if not asset.is_stateful or not asset.published:
                    continue
                if asset.place not in present or known.get(asset.name) is None:
                    continue
                relation = RelationName(*asset.relation)
                try:
                    columns = relation_columns(con, relation, asset.name)
                except PublicationError:
                    continue
                con.execute(f"create schema if not exists {BEFORE_SCHEMA}")
                before = RelationName(
                    relation.database, BEFORE_SCHEMA, f"{relation.schema}.{relation.identifier}"
                )
                hashes = row_hash([name for name, _kind in columns])
                con.execute(
                    f"create table {before.sql()} as select {hashes} as h from ({projection(relation, columns)})"
                )
                noted[asset.id] = Before(before, tuple((name, kind.sql) for name, kind in columns))
        return noted

    def forget(self, assets: Sequence[Asset]) -> None:
        """Note that dbt is about to change relations, which equal no snapshot until they are published.

        Args:
            assets: Those that dbt is about to build.
        """
        known = self._snapshots()
        self.unjudged.add(asset.id for asset in assets)
        changing = [asset.name for asset in assets if asset.is_stateful or known.get(asset.name)]
        if changing:
            self.remember(dict.fromkeys(changing))

    def remember(self, snapshots: Mapping[str, int | None]) -> None:
        """Note which snapshot a relation equals; None where it equals none."""
        known = {**self._snapshots(), **snapshots}
        write_atomically(self._record, json.dumps(known, sort_keys=True).encode())

    def _snapshots(self) -> dict[str, int | None]:
        try:
            loaded = json.loads(self._record.read_bytes())
            return loaded if isinstance(loaded, dict) else {}
        except (OSError, ValueError):
            return {}


def views_of(assets: Mapping[str, Asset], keys: Collection[str]) -> set[str]:
    """Return the unique ids of the views that show what some assets hold, through other views, too.

    Args:
        assets: By unique id, each after those that it reads.
        keys: Unique ids of those assets; they are no part of the answer.
    """
    shown = set(keys)
    for key, asset in assets.items():
        if asset.is_view and not shown.isdisjoint(asset.deps):
            shown.add(key)
    return shown - set(keys)


def _drop(con: duckdb.DuckDBPyConnection, relation: RelationName) -> None:
    """Drop what stands under a name; a model that another engine builds now may have been a view."""
    con.execute(f"drop {_kind(con, relation) or 'table'} if exists {relation.sql()}")


def _kind(con: duckdb.DuckDBPyConnection, relation: RelationName) -> str | None:
    """Return whether a view or a table stands under a name; None where nothing does."""
    found = con.execute(
        "select table_type from information_schema.tables where table_catalog = ? and table_schema = ? and table_name = ?",
        [relation.database, relation.schema, relation.identifier],
    ).fetchall()
    if not found:
        return None
    return "view" if found[0][0] == "VIEW" else "table"


def _concerns_all(error: Exception) -> bool:
    """Tell whether an error is not one table's: the catalog is away, the disk is full, the file is busy."""
    import duckdb

    is_away = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
    return is_away or isinstance(error, CatalogError | duckdb.IOException) or is_remote_failure(error)
