"""Trino: models are Iceberg tables of the platform's catalog from the start, in a schema that is the run's alone.

A published table is cloned into it, dbt writes the clone, and what passes the audit is promoted: metadata moves, no data.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import dagster as dg

from floe_dagster.compilation.profiles import with_client_tag
from floe_dagster.definitions.run_metadata import RelationColumns, RelationMetadata
from floe_dagster.definitions.workspaces.base import PublicationRequest, WorkspaceRequest, is_foreign, place
from floe_dagster.definitions.workspaces.deferral import write_state
from floe_dagster.definitions.workspaces.locks import identity, only_writer
from floe_dagster.definitions.workspaces.trino_copies import COPY, Copies, is_copied
from floe_dagster.engines.errors import EngineError
from floe_dagster.engines.trino.access import TrinoAccess
from floe_dagster.engines.trino.queries import TrinoQueries
from floe_dagster.engines.trino.warehouse import TrinoWarehouse
from floe_dagster.iceberg.clones import CLONE_ID, drop_clone, drop_clones, is_clone, make_clone
from floe_dagster.iceberg.errors import CatalogError
from floe_dagster.iceberg.leases import Lease, lease
from floe_dagster.iceberg.namespaces import make_namespace
from floe_dagster.iceberg.promotion import promote
from floe_dagster.iceberg.publication import PublicationResult
from floe_dagster.schemas.compute.engine import STATEFUL, audit_schema

AT_ONCE = 4
"""A clone is mostly waiting for the catalog."""

_QUERY_ERROR = re.compile(
    r'Trino\w*Error\(type=(?P<type>\w+), name=(?P<name>\w+), message="(?P<message>.*?)", query_id=(?P<id>\w+)\)',
    re.DOTALL,
)
_TRANSIENT = re.compile(
    r"\b(QUERY_QUEUE_FULL|CLUSTER_OUT_OF_MEMORY|NO_NODES_AVAILABLE|REMOTE_HOST_GONE|REMOTE_TASK_ERROR|"
    r"REMOTE_TASK_MISMATCH|TOO_MANY_REQUESTS_FAILED|PAGE_TRANSPORT_ERROR|PAGE_TRANSPORT_TIMEOUT|SERVER_SHUTTING_DOWN|"
    r"SERVER_STARTING_UP|SERVER_RESTARTED|ABANDONED_QUERY|ICEBERG_COMMIT_ERROR)\b"
    r"|Failed to establish a new connection|Connection refused|Connection aborted|Max retries exceeded"
    r"|RemoteDisconnected|Read timed out|error 50[234]"
)
_LIMITS = {
    "QUERY_QUEUE_FULL": "the queue of Trino's resource group is full",
    "EXCEEDED_LOCAL_MEMORY_LIMIT": "query.max-memory-per-node of Trino",
    "EXCEEDED_GLOBAL_MEMORY_LIMIT": "query.max-memory of Trino, or query_max_memory in session_properties",
    "EXCEEDED_TIME_LIMIT": "query.max-run-time or query.max-execution-time of Trino, or the session property of that name",
    "EXCEEDED_CPU_LIMIT": "query.max-cpu-time of Trino, or query_max_cpu_time in session_properties",
    "EXCEEDED_SCAN_LIMIT": "query.max-scan-physical-bytes of Trino, or the session property of that name",
}
_CORRECTIONS = {
    "CATALOG_NOT_FOUND": "correct {field}.config.catalog of the manifest",
    "INVALID_SESSION_PROPERTY": "correct {field}.config.session_properties of the manifest",
    "SYNTAX_ERROR": "docs/trino.md says where Trino's SQL is not DuckDB's",
}


class TrinoWorkspace:
    """Builds in the audit schema of the product's Trino catalog.

    Args:
        request: What it is made from. Trino's queries bear its `run_id`.
    """

    def __init__(self, request: WorkspaceRequest) -> None:
        self.slug = request.slug
        self.engine = request.engine
        self.less_memory = ""
        self.bundle = request.bundle
        self.assets = request.assets
        self.home = request.home
        self.log = request.log
        self.config = request.config
        self.field = request.field
        self.run_id = request.run_id
        self.tag = f"floe-run={self.run_id}"
        self.profiles: Mapping[str, Any] = with_client_tag(request.profiles, self.slug, self.tag)
        own = (asset for asset in self.assets.values() if not is_foreign(asset, self.engine.name))
        self.schemas = sorted({asset["relation"][1] for asset in own})
        self._clones: dict[str, str] = {}
        """`CLONE_ID` of each clone that this run has made, by unique id of the asset."""
        self.lease = Lease()

    @contextmanager
    def writing(self, catalog: Any) -> Iterator[None]:
        """See `Workspace`: left-overs of a run that was killed are taken away before, and this one's after."""
        self.access = TrinoAccess(self.config, field=self.field)
        self.queries = TrinoQueries(self.access, self.tag)
        self.warehouse = TrinoWarehouse(self.access, self.config["catalog"], self.tag)
        own = audit_schema(self.slug)
        lock = self.home.locks_dir / f"{self.engine.name}-{self.slug}.lock"
        with only_writer(lock, f"{self.slug} on Trino", self.log):
            self.access.check()
            for schema in sorted({*self.schemas, own}):
                make_namespace(catalog, schema)
            with lease(
                catalog,
                own,
                holder=f"run {self.run_id} on {socket.gethostname()}",
                # A folder may have been copied to another machine.
                place=f"{identity(lock.with_suffix('.place'))} on {socket.gethostname()}",
                say=self.log.info,
            ) as self.lease:
                for schema in self.schemas:
                    if left := drop_clones(catalog, schema):
                        self.log.info(f"left by a run that was killed, and taken away: {', '.join(left)}")
                finished = False
                try:
                    with self.queries.remembered():
                        yield
                    finished = True
                finally:
                    self._clean_up(catalog, finished=finished)

    def _clean_up(self, catalog: Any, *, finished: bool) -> None:
        """End what still runs and take the clones away; what fails here, the next run does."""
        try:
            if not finished and (ended := self.queries.cancel()):
                self.log.info(f"cancelled in Trino: {', '.join(ended)}")
            # Another run may have begun, where this one was taken for killed: its clones are not this run's to drop.
            for schema in self.schemas:
                drop_clones(catalog, schema, set(self._clones.values()))
        except Exception as error:  # the run's own end says more than a catalog that is away
            self.log.warning(
                f"clones of {self.slug} were left in the catalog; the next run drops them: {error}"
            )

    def environment(self) -> Mapping[str, str]:
        """See `Workspace`: with a token that begins now; other engines may have worked for hours before."""
        return self.access.environment

    def arguments(self) -> Sequence[str]:
        """See `Workspace`: what is not built is read as it is published."""
        folder = self.home.dbt_target_dir(self.slug).with_name("state")
        write_state(self.bundle.dbt_manifest(), self.assets.values(), self.slug, folder)
        return "--defer", "--favor-state", "--defer-state", str(folder)

    def testable(self, keys: set[str]) -> set[str]:
        """See `Workspace`: tests read the published tables."""
        return keys

    def prepare(self, catalog: Any, wanted: set[str], read: set[str], *, full_refresh: bool) -> set[str]:
        """See `Workspace`: what is published and will be written is cloned."""
        present = self.warehouse.kinds(self.schemas)
        extra = self._missing(catalog, wanted, read, present)
        if extra:
            names = sorted(self.assets[key]["name"] for key in extra)
            self.log.info(f"read and not published, so built as well: {', '.join(names)}")
        to_build = wanted | extra
        published = [self.assets[key] for key in to_build if self.assets[key]["published"]]
        for asset in published:
            database, schema, name = self.written(asset)
            # Not published, and not to be begun with: an increment that was withheld, or a run that was killed.
            if kind := present.get((schema.lower(), name.lower())):
                self._check_droppable(catalog, (schema, name))
                self.warehouse.drop((database, schema, name), kind)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="floe-clone") as pool:
            made = [
                clone for clone in pool.map(lambda asset: self._clone(catalog, asset), published) if clone
            ]
        if made:
            self._check_seen(made[-1])
        return to_build

    def _clone(self, catalog: Any, asset: Mapping[str, Any]) -> Any | None:
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

        try:
            table = catalog.load_table((self.slug, asset["name"]))
        except (NoSuchTableError, NoSuchNamespaceError):
            return None
        _database, schema, name = self.written(asset)
        clone = make_clone(catalog, table, (schema, name))
        self._clones[asset["id"]] = clone.metadata.properties[CLONE_ID]
        return clone

    def _check_droppable(self, catalog: Any, identifier: tuple[str, str]) -> None:
        """Refuse to let Trino drop a clone, whose files are the published table's: another run writes it."""
        from pyiceberg.exceptions import NoSuchTableError

        try:
            is_other_run = is_clone(catalog.load_table(identifier))
        except NoSuchTableError:
            return
        if is_other_run:
            raise CatalogError(
                f"{'.'.join(identifier)} is written by another run of {self.slug}, on another machine: let it end first. Where "
                "there is none, a run was killed meanwhile; the next one takes the clone away"
            )

    def _check_seen(self, clone: Any) -> None:
        """Fail where Trino builds in another catalog: the clones would be published as they are.

        Args:
            clone: A table that was just made in `plugins.catalog`.
        """
        schema, name = clone.name()[-2:]
        seen = self.warehouse.table_property((self.config["catalog"], schema, name), CLONE_ID)
        if seen != clone.metadata.properties[CLONE_ID]:
            raise EngineError(
                f"Trino's catalog {self.config['catalog']!r} does not have the table {schema}.{name} that was just made in "
                f"plugins.catalog: it is another catalog. Correct {self.field}.catalog, or iceberg.rest-catalog.uri and "
                ".warehouse in Trino; `floe-dagster platform check` looks again",
                transient=False,
            )

    def _missing(
        self, catalog: Any, wanted: set[str], read: set[str], present: Mapping[tuple[str, str], str]
    ) -> set[str]:
        build: set[str] = set()
        pending = [*read, *(up for key in wanted for up in self.assets[key]["deps"])]
        while pending:
            key = pending.pop()
            asset = self.assets[key]
            if key in wanted or key in build or is_foreign(asset, self.engine.name):
                continue
            if asset["published"]:
                stands = catalog.table_exists((self.slug, asset["name"]))
            else:
                # A view reads what its last run built, clones that are gone: made again, it reads what is published.
                is_view = asset["materialized"] == "view"
                stands = place(asset) in present and not is_view
            if not stands:
                build.add(key)
                pending += asset["deps"]
        return build

    def judged(self, built: Collection[str], clean: Collection[str]) -> None:
        """See `Workspace`: what is published is read as it is published, and views are made again each time."""

    def forget(self, keys: Collection[str]) -> None:
        """See `Workspace`: what was written stands in the run's own schema, which the next run clears before it builds."""

    def written(self, asset: Mapping[str, Any]) -> tuple[str, str, str]:
        """Return the relation that becomes the published table."""
        database, schema, name = asset["relation"]
        return database, schema, f"{name}{COPY}" if is_copied(asset) else name

    def clone_of(self, asset: Mapping[str, Any]) -> str | None:
        """Return `CLONE_ID` of the clone of an asset that this run writes; None where it was not published before."""
        return self._clones.get(asset["id"])

    def mode(self, request: PublicationRequest) -> str:
        """Return how rows come into the published table; at first there is none."""
        return request.options.mode if self.clone_of(request.asset) else "overwrite"

    @contextmanager
    def built(self, catalog: Any) -> Iterator[BuiltInTrino]:
        """See `Workspace`."""
        yield BuiltInTrino(self, catalog)

    def explain(self, message: str) -> str:
        """See `Workspace`: what Trino says, its query, and the limit where it was one."""
        found = _QUERY_ERROR.search(message)
        if not found:
            return " ".join(line.strip() for line in message.strip().splitlines()[:3])
        limit = _LIMITS.get(found["name"])
        correction = _CORRECTIONS.get(found["name"], "").format(field=self.field)
        said = " ".join(found["message"].split())
        more = f" (limit: {limit})" if limit else f" ({correction})" if correction else ""
        return f"Trino: {found['name']}: {said}{more}, query {found['id']}"

    def held_by(self, message: str) -> str | None:
        """See `Workspace`: a cluster is there for everybody."""
        return None

    def is_transient(self, message: str) -> bool:
        """See `Workspace`: nodes that went away, a full queue."""
        return bool(_TRANSIENT.search(message))

    def said(self, error: Exception) -> str | None:
        """See `Workspace`: what Trino says ends the run, see `failure`."""
        return None

    def failure(self, error: Exception) -> dg.Failure | None:
        """See `Workspace`."""
        from trino.exceptions import TrinoQueryError

        if isinstance(error, EngineError):
            return dg.Failure(str(error), allow_retries=error.transient)
        if isinstance(error, TrinoQueryError):
            said = self.explain(str(error))
            return dg.Failure(said, allow_retries=self.is_transient(said))
        return None


class BuiltInTrino:
    """What stands in the audit schema.

    Args:
        workspace: Whose it is.
        catalog: From `open_catalog`.
    """

    def __init__(self, workspace: TrinoWorkspace, catalog: Any) -> None:
        self._workspace = workspace
        self._catalog = catalog
        # Before anything is promoted: a table that gets its published name stands here no more.
        schemas = [
            *workspace.schemas,
            *([workspace.slug] if catalog.namespace_exists(workspace.slug) else []),
        ]
        self._copies = Copies(workspace)
        self._away: EngineError | None = None
        self.columns: RelationColumns = {}
        try:
            self.columns = workspace.warehouse.columns(schemas)
        except EngineError as error:
            if not error.transient:
                raise
            # What it has built is in the catalog, which publishes it without Trino's help.
            self._away = error
            workspace.log.warning(
                f"what passed its tests is published, without columns of views and seeds, column lineage and costs: {error}"
            )
        self._metadata = RelationMetadata(
            self.columns, self._count, workspace.assets, workspace.slug, workspace.engine.dialect
        )

    def _count(self, asset: Mapping[str, Any]) -> int | None:
        # A published table's rows are counted in its snapshot.
        if self._away or asset["published"]:
            return None
        return self._workspace.warehouse.count(asset["relation"])

    def describe(self, asset: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
        """See `BuiltRelations`: with what the model's query took."""
        metadata = self._metadata.describe(asset, result)
        query_id = str((result.get("adapter_response") or {}).get("query_id") or "")
        if not query_id:
            return metadata
        metadata["trino/query_id"] = query_id
        metadata["trino/query"] = dg.MetadataValue.url(self._workspace.access.query_url(query_id))
        if cost := self._workspace.queries.cost(query_id, ask=not self._away):
            metadata |= {
                "trino/seconds": cost.elapsed_seconds,
                "trino/queued_seconds": cost.queued_seconds,
                "trino/cpu_seconds": cost.cpu_seconds,
                "trino/peak_memory_bytes": cost.peak_memory_bytes,
                "trino/read_bytes": cost.read_bytes,
                "trino/written_bytes": cost.written_bytes,
                "trino/splits": cost.splits,
            }
        return metadata

    def publisher(self) -> TrinoPublisher:
        """See `BuiltRelations`."""
        return TrinoPublisher(self._workspace, self._catalog, self._copies)

    def stage(self, requests: Sequence[PublicationRequest]) -> None:
        """See `BuiltRelations`: a view reads a table that gets its published name, and stands here no more."""
        self._copies.make(requests, self._away)

    def published(self, asset: Mapping[str, Any], result: PublicationResult) -> None:
        """See `BuiltRelations`."""


class TrinoPublisher:
    """Promotes what dbt wrote.

    Args:
        workspace: Where it stands.
        catalog: From `open_catalog`.
        copies: Made before.
    """

    def __init__(self, workspace: TrinoWorkspace, catalog: Any, copies: Copies) -> None:
        self._workspace = workspace
        self._catalog = catalog
        self._copies = copies

    def publish(self, request: PublicationRequest) -> PublicationResult:
        """See `Publisher`."""
        asset = request.asset
        clone = self._workspace.clone_of(asset)
        _database, schema, name = self._workspace.written(asset)
        self._copies.check(asset)
        self._workspace.lease.check()
        result = promote(
            self._catalog,
            source=(schema, name),
            target=(request.namespace, request.table),
            snapshot_properties=request.snapshot_properties,
            column_docs=request.column_docs,
            options=request.options,
            always_written=self._workspace.mode(request) == "overwrite"
            and asset["materialized"] not in STATEFUL,
            clone=clone,
        )
        if clone:
            self._forget((schema, name))
        return result

    def _forget(self, clone: tuple[str, str]) -> None:
        try:
            drop_clone(self._catalog, clone)
        except Exception as error:  # it is published; the end of the run takes the clone away
            self._workspace.log.warning(
                f"the clone {'.'.join(clone)} is left for the end of the run: {error}"
            )

    def interrupt(self) -> None:
        """See `Publisher`."""
        self._workspace.queries.cancel()

    def close(self) -> None:
        """See `Publisher`."""
