"""DuckDB: a file of this machine, a cache of what Iceberg holds."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floe_dagster.compilation.profiles import configured_memory_limit, duckdb_file, with_memory_limit
from floe_dagster.execution.description import RelationColumns, Relations
from floe_dagster.execution.errors import RunError, WorkspaceError
from floe_dagster.execution.results import RelationDescription
from floe_dagster.execution.workspaces.base import Prepared, PublicationRequest, WorkspaceRequest
from floe_dagster.execution.workspaces.duckdb.cache import Before, DuckDBCache, views_of
from floe_dagster.execution.workspaces.duckdb.held import lock_problem
from floe_dagster.execution.workspaces.locks import only_writer
from floe_dagster.iceberg.publication import PublicationOptions, PublicationResult, publish_relation
from floe_dagster.iceberg.relation import RelationName, relation_columns
from floe_dagster.iceberg.storage import local_folder
from floe_dagster.iceberg.types import quoted
from floe_dagster.memory import duckdb_memory_limit
from floe_dagster.schemas.product_index import Asset

if TYPE_CHECKING:
    import duckdb
    from pyiceberg.catalog import Catalog

_TRANSIENT = re.compile(r"\bIO Error\b|Could not set lock|No space left on device")


class DuckDBWorkspace:
    """Builds in the product's DuckDB file; what is published is copied from there.

    Args:
        request: What it is made from.
    """

    def __init__(self, request: WorkspaceRequest) -> None:
        self.slug = slug = request.slug
        self.engine = request.engine
        self.field = request.field
        self.less_memory = f", or {request.engine.title} a lower {request.field}.memory_limit"
        self.assets = request.assets
        self.profiles = profiles = request.profiles
        self.home = home = request.home
        self.log = log = request.log
        self.file = duckdb_file(profiles, slug, home)
        configured = configured_memory_limit(profiles, slug)
        limit = duckdb_memory_limit(configured)
        if configured is not None and limit != configured:
            log.info(
                f"memory_limit {configured} does not fit beside the run's processes: DuckDB takes {limit}"
            )
        if limit is not None:
            self.profiles = with_memory_limit(profiles, slug, limit)
        self.cache = DuckDBCache(self.file, request.engine.name, limit)
        self.scratch = home.path / "scratch"
        self.before: dict[str, Before] = {}
        self.folders: tuple[Path, ...] = (self.scratch,)

    @contextmanager
    def writing(self, catalog: Catalog) -> Iterator[None]:
        """See `Workspace`: one process at a time writes the file."""
        with only_writer(
            self.home.locks_dir / f"{self.engine.name}-{self.slug}.lock", self.file.name, self.log
        ):
            yield

    def environment(self) -> Mapping[str, str]:
        """See `Workspace`."""
        return {}

    def arguments(self) -> Sequence[str]:
        """See `Workspace`."""
        # What is not selected stands in the file, whatever the project's flags say of other places.
        return ("--no-defer",)

    def testable(self, keys: set[str]) -> set[str]:
        """See `Workspace`: without its relation in the file a test cannot run alone."""
        present = self.cache.relations()
        return {key for key in keys if self.assets[key].place in present}

    def missing(self, catalog: Catalog, wanted: set[str]) -> set[str]:
        """See `Workspace`."""
        extra, _restored = self.cache.missing(
            self.assets, wanted, set(), partial(self._is_restorable, catalog)
        )
        return extra

    def prepare(self, catalog: Catalog, wanted: set[str], read: set[str], *, full_refresh: bool) -> Prepared:
        """See `Workspace`: stateful models and what other engines published are brought to what Iceberg holds."""
        self._make_folder()
        extra, restored = self.cache.missing(self.assets, wanted, read, partial(self._is_restorable, catalog))
        if extra:
            names = sorted(self.assets[key].name for key in extra)
            self.log.info(f"not in the DuckDB file, so built as well: {', '.join(names)}")
        to_build = wanted | extra
        bring_back = restored | {key for key in to_build if not full_refresh or self._outlasts_refresh(key)}
        building = [asset for key, asset in self.assets.items() if key in bring_back]
        refused = self.cache.restore(building, catalog, self.slug, self.log)
        if full_refresh and refused:
            # Whoever asks for a full refresh has read so in the reason.
            self.cache.begin_anew([self.assets[key] for key in refused if key in to_build])
            refused = {key: reason for key, reason in refused.items() if key not in to_build}
        if refused:
            return Prepared(to_build, refused)
        if not full_refresh:
            self.before = self.cache.note_before(
                [asset for key, asset in self.assets.items() if key in to_build]
            )
        # A process that is killed from here on must not leave an increment that the next run adds again.
        self.cache.forget([self.assets[key] for key in to_build])
        # A view shows what is built now, which nobody has tested in it.
        self.cache.unjudged.add(views_of(self.assets, to_build))
        return Prepared(to_build)

    def _outlasts_refresh(self, key: str) -> bool:
        """Tell whether a full refresh needs what an asset held."""
        asset = self.assets[key]
        # dbt extends a snapshot all the same. Rows that no table holds are kept: the refresh may fail.
        return asset.materialized == "snapshot" or not asset.published

    def _is_restorable(self, catalog: Catalog, key: str) -> bool:
        asset = self.assets[key]
        return asset.published and asset.is_stateful and catalog.table_exists(asset.identifier(self.slug))

    def judged(self, built: Collection[str], clean: Collection[str]) -> None:
        """See `Workspace`: what did not pass counts as not there."""
        self.cache.unjudged.discard(clean)

    def forget(self, keys: Collection[str]) -> None:
        """See `Workspace`: the next run restores them from Iceberg."""
        self.cache.forget([self.assets[key] for key in keys if key in self.assets])

    def _make_folder(self) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = (
                f"the folder of the DuckDB file {self.file} cannot be made: {error.strerror}. Name one that can be "
                f"written in {self.field}.path, or leave it out: the file lies under FLOE_HOME then"
            )
            # The command line shows what is logged.
            self.log.error(message)
            raise WorkspaceError(message, transient=False) from error

    @contextmanager
    def built(self, catalog: Catalog) -> Iterator[BuiltInDuckDB]:
        """See `Workspace`."""
        warehouse = local_folder(str(catalog.properties.get("warehouse") or ""))
        self.folders = (self.scratch, *([warehouse] if warehouse else []))
        with self.cache.open(read_only=True, folders=self.folders) as con:
            yield BuiltInDuckDB(con, self, catalog)

    def explain(self, message: str) -> str:
        """See `Workspace`."""
        return next(iter(message.strip().splitlines()), "")

    def held_by(self, message: str) -> str | None:
        """See `Workspace`: another process has the file open."""
        return lock_problem(message)

    def is_transient(self, message: str) -> bool:
        """See `Workspace`: the file is busy, the disk is full."""
        return bool(_TRANSIENT.search(message))

    def said(self, error: Exception) -> str | None:
        """See `Workspace`."""
        import duckdb

        return self.explain(str(error)) if isinstance(error, duckdb.Error) else None

    def failure(self, error: Exception) -> RunError | None:
        """See `Workspace`: another process holds the file."""
        import duckdb

        if isinstance(error, duckdb.Error) and (locked := lock_problem(str(error))):
            return WorkspaceError(locked, transient=True)
        return None


class BuiltInDuckDB:
    """What stands in the DuckDB file.

    Args:
        con: An open connection, read only.
        workspace: Whose file it is.
        catalog: From `open_catalog`.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, workspace: DuckDBWorkspace, catalog: Catalog) -> None:
        self._con = con
        self._workspace = workspace
        self._catalog = catalog
        self._relations = Relations(
            _columns(con), self._count, workspace.assets, workspace.slug, workspace.engine.dialect
        )

    def describe(self, asset: Asset, result: Mapping[str, Any]) -> RelationDescription:
        """See `BuiltRelations`."""
        return self._relations.describe(asset, result)

    def columns_of(self, asset: Asset) -> Mapping[str, str]:
        """See `BuiltRelations`."""
        return self._relations.columns_of(asset)

    def _count(self, asset: Asset) -> int:
        relation = ".".join(quoted(part) for part in asset.relation)
        return int(self._con.execute(f"select count(*) from {relation}").fetchall()[0][0])

    def publisher(self) -> CursorPublisher:
        """See `BuiltRelations`: each has a cursor of its own."""
        return CursorPublisher(
            self._con.cursor(), self._catalog, self._workspace.before, self._workspace.folders
        )

    def stage(self, requests: Sequence[PublicationRequest]) -> None:
        """See `BuiltRelations`: each is published from where it stands."""

    def published(self, asset: Asset, result: PublicationResult) -> None:
        """See `BuiltRelations`."""
        if asset.is_stateful:
            self._workspace.cache.remember({asset.name: result.snapshot_id})


class CursorPublisher:
    """Publishes relations of the DuckDB file through one cursor.

    Args:
        cursor: Nobody else's.
        catalog: From `open_catalog`.
        before: What stateful models held before dbt extended them, by unique id.
        folders: That DuckDB may write; the first takes files on their way.
    """

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        catalog: Catalog,
        before: Mapping[str, Before],
        folders: tuple[Path, ...],
    ) -> None:
        self._cursor = cursor
        self._catalog = catalog
        self._before = before
        self._folders = folders

    def publish(self, request: PublicationRequest) -> PublicationResult:
        """See `Publisher`."""
        relation = RelationName(*request.asset.relation)
        return publish_relation(
            self._cursor,
            relation,
            catalog=self._catalog,
            namespace=request.namespace,
            table=request.table,
            snapshot_properties=request.snapshot_properties,
            column_docs=request.column_docs,
            options=self._options(request, relation),
        )

    def _options(self, request: PublicationRequest, relation: RelationName) -> PublicationOptions:
        asset, options = request.asset, request.options
        before = self._before.get(asset.id)
        mode, key = options.mode, options.key
        if asset.is_stateful:
            mode, key = "overwrite", asset.unique_key
            if before is not None and asset.table.write_mode != "overwrite":
                columns = relation_columns(self._cursor, relation, asset.name)
                # With other columns every row is another one.
                if before.columns == tuple((name, kind.sql) for name, kind in columns):
                    mode = "increment"
        return replace(
            options,
            mode=mode,
            key=key,
            before=before.relation if before is not None and mode == "increment" else None,
            scratch=self._folders[0],
            folders=self._folders,
        )

    def interrupt(self) -> None:
        """See `Publisher`."""
        self._cursor.interrupt()

    def close(self) -> None:
        """See `Publisher`."""
        self._cursor.close()


def _columns(con: duckdb.DuckDBPyConnection) -> RelationColumns:
    columns: dict[tuple[str, str], dict[str, str]] = {}
    rows = con.execute(
        "select schema_name, table_name, column_name, data_type from duckdb_columns() "
        "where not internal order by schema_name, table_name, column_index"
    ).fetchall()
    for schema, table, column, kind in rows:
        columns.setdefault((schema.lower(), table.lower()), {})[column] = kind
    return columns
