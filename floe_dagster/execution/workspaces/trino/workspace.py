"""Trino: models are Iceberg tables of the platform's catalog from the start, in a schema that is the run's alone.

A published table is cloned into it, dbt writes the clone, and what passes the audit is promoted: metadata moves, no data.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from floe_dagster.compilation.profiles import with_client_tag
from floe_dagster.engines.errors import EngineError
from floe_dagster.engines.trino.access import TrinoAccess
from floe_dagster.engines.trino.queries import TrinoQueries
from floe_dagster.engines.trino.warehouse import TrinoWarehouse
from floe_dagster.execution.errors import RunError
from floe_dagster.execution.workspaces.base import Prepared, WorkspaceRequest
from floe_dagster.execution.workspaces.locks import identity, only_writer
from floe_dagster.execution.workspaces.trino.copies import written
from floe_dagster.execution.workspaces.trino.deferral import write_state
from floe_dagster.execution.workspaces.trino.messages import TrinoMessages
from floe_dagster.execution.workspaces.trino.publishing import BuiltInTrino
from floe_dagster.execution.workspaces.trino.session import TrinoSession
from floe_dagster.execution.workspaces.unjudged import Unjudged
from floe_dagster.iceberg.clones import CLONE_ID, drop_clones, is_clone, make_clone
from floe_dagster.iceberg.errors import CatalogError, PublicationError
from floe_dagster.iceberg.leases import lease
from floe_dagster.iceberg.namespaces import make_namespace
from floe_dagster.schemas.compute.engine import audit_schema
from floe_dagster.schemas.product_index import Asset

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

AT_ONCE = 4
"""A clone is mostly waiting for the catalog."""


class TrinoWorkspace:
    """Builds in the audit schema of the product's Trino catalog.

    Args:
        request: What it is made from. Trino's queries bear its `run_id`.
    """

    def __init__(self, request: WorkspaceRequest) -> None:
        self.request = request
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
        own = (asset for asset in self.assets.values() if not asset.is_foreign(self.engine.name))
        self.schemas = sorted({asset.relation[1] for asset in own})
        self.messages = TrinoMessages(request.field)
        self.unjudged = Unjudged(self.home.cache_dir / f"{self.engine.name}-{self.slug}.unjudged.json")
        self._session: TrinoSession | None = None

    @property
    def session(self) -> TrinoSession:
        """What the run has of Trino, inside of `writing`."""
        if self._session is None:
            raise RuntimeError("nobody is writing on Trino now")
        return self._session

    @contextmanager
    def writing(self, catalog: Catalog) -> Iterator[None]:
        """See `Workspace`: left-overs of a run that was killed are taken away before, and this one's after."""
        access = TrinoAccess(self.config, field=self.field)
        own = audit_schema(self.slug)
        lock = self.home.locks_dir / f"{self.engine.name}-{self.slug}.lock"
        with only_writer(lock, f"{self.slug} on Trino", self.log):
            access.check()
            for schema in sorted({*self.schemas, own}):
                make_namespace(catalog, schema)
            with lease(
                catalog,
                own,
                holder=f"run {self.run_id} on {socket.gethostname()}",
                # A folder may have been copied to another machine.
                place=f"{identity(lock.with_suffix('.place'))} on {socket.gethostname()}",
                say=self.log.info,
            ) as held:
                self._session = session = TrinoSession(
                    access,
                    TrinoQueries(access, self.tag),
                    TrinoWarehouse(access, self.config["catalog"], self.tag),
                    held,
                    self.messages,
                )
                for schema in self.schemas:
                    if left := drop_clones(catalog, schema):
                        self.log.info(f"left by a run that was killed, and taken away: {', '.join(left)}")
                finished = False
                try:
                    with session.queries.remembered():
                        yield
                    finished = True
                finally:
                    self._clean_up(catalog, session, finished=finished)

    def _clean_up(self, catalog: Catalog, session: TrinoSession, *, finished: bool) -> None:
        """End what still runs and take the clones away; what fails here, the next run does."""
        try:
            if not finished and (ended := session.queries.cancel()):
                self.log.info(f"cancelled in Trino: {', '.join(ended)}")
            # Another run may have begun, where this one was taken for killed: its clones are not this run's to drop.
            for schema in self.schemas:
                drop_clones(catalog, schema, set(session.clones.values()))
        except Exception as error:  # the run's own end says more than a catalog that is away
            self.log.warning(
                f"clones of {self.slug} were left in the catalog; the next run drops them: {error}"
            )

    def environment(self) -> Mapping[str, str]:
        """See `Workspace`: with a token that begins now; other engines may have worked for hours before."""
        return self.session.access.environment

    def arguments(self) -> Sequence[str]:
        """See `Workspace`: what is not built is read as it is published."""
        folder = self.home.dbt_target_dir(self.slug).with_name("state")
        write_state(self.bundle.dbt_manifest(), self.assets.values(), self.slug, folder)
        return "--defer", "--favor-state", "--defer-state", str(folder)

    def testable(self, keys: set[str]) -> set[str]:
        """See `Workspace`: tests read the published tables."""
        return keys

    def missing(self, catalog: Catalog, wanted: set[str]) -> set[str]:
        """See `Workspace`."""
        return self._missing(catalog, wanted, set(), self.session.warehouse.kinds(self.schemas))

    def prepare(self, catalog: Catalog, wanted: set[str], read: set[str], *, full_refresh: bool) -> Prepared:
        """See `Workspace`: what is published and will be written is cloned."""
        present = self.session.warehouse.kinds(self.schemas)
        extra = self._missing(catalog, wanted, read, present)
        if extra:
            names = sorted(self.assets[key].name for key in extra)
            self.log.info(f"read and not published, so built as well: {', '.join(names)}")
        to_build = wanted | extra
        published = [self.assets[key] for key in to_build if self.assets[key].published]
        for asset in published:
            database, schema, name = written(asset)
            # Not published, and not to be begun with: an increment that was withheld, or a run that was killed.
            if kind := present.get((schema.lower(), name.lower())):
                self._check_droppable(catalog, (schema, name))
                self.session.warehouse.drop((database, schema, name), kind)
        refused: dict[str, str] = {}
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="floe-clone") as pool:
            made = [
                clone
                for clone in pool.map(lambda asset: self._clone(catalog, asset, refused), published)
                if clone
            ]
        if made:
            self._check_seen(made[-1])
        if refused:
            return Prepared(to_build, refused)
        self._begin_anew([self.assets[key] for key in to_build], present)
        return Prepared(to_build)

    def _clone(self, catalog: Catalog, asset: Asset, refused: dict[str, str]) -> Table | None:
        """Clone one table where it is published; what keeps it alone from being cloned is added to `refused`."""
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

        _database, schema, name = written(asset)
        try:
            clone = make_clone(catalog, catalog.load_table(asset.identifier(self.slug)), (schema, name))
        except (PublicationError, FileNotFoundError) as error:
            refused[asset.id] = f"what is published of it cannot be cloned ({error}). Restore its files"
            return None
        except (NoSuchTableError, NoSuchNamespaceError):
            return None
        self.session.clones[asset.id] = clone.metadata.properties[CLONE_ID]
        return clone

    def _begin_anew(self, building: Sequence[Asset], present: Mapping[tuple[str, str], str]) -> None:
        """Drop what a stateful model without a published table was left with that did not pass, or was not finished."""
        own = [asset for asset in building if asset.is_stateful and not asset.published]
        unjudged = self.unjudged.keys()
        for asset in own:
            if asset.id in unjudged and (kind := present.get(asset.place)):
                self.session.warehouse.drop(asset.relation, kind)
                self.log.info(
                    f"{asset.name} begins anew: what the last run built did not pass, or was not finished"
                )
        if own:
            self.unjudged.add(asset.id for asset in own)

    def _check_droppable(self, catalog: Catalog, identifier: tuple[str, str]) -> None:
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

    def _check_seen(self, clone: Table) -> None:
        """Fail where Trino builds in another catalog: the clones would be published as they are.

        Args:
            clone: A table that was just made in `plugins.catalog`.
        """
        schema, name = clone.name()[-2:]
        seen = self.session.warehouse.table_property((self.config["catalog"], schema, name), CLONE_ID)
        if seen != clone.metadata.properties[CLONE_ID]:
            raise EngineError(
                f"Trino's catalog {self.config['catalog']!r} does not have the table {schema}.{name} that was just made in "
                f"plugins.catalog: it is another catalog. Correct {self.field}.catalog, or iceberg.rest-catalog.uri and "
                ".warehouse in Trino; `floe-dagster platform check` looks again",
                transient=False,
            )

    def _missing(
        self, catalog: Catalog, wanted: set[str], read: set[str], present: Mapping[tuple[str, str], str]
    ) -> set[str]:
        build: set[str] = set()
        pending = [*read, *(up for key in wanted for up in self.assets[key].deps)]
        while pending:
            key = pending.pop()
            asset = self.assets[key]
            if key in wanted or key in build or asset.is_foreign(self.engine.name):
                continue
            if asset.published:
                stands = catalog.table_exists(asset.identifier(self.slug))
            else:
                # A view reads what its last run built, clones that are gone: made again, it reads what is published.
                stands = asset.place in present and not asset.is_view
            if not stands:
                build.add(key)
                pending += asset.deps
        return build

    def judged(self, built: Collection[str], clean: Collection[str]) -> None:
        """See `Workspace`: what is published is read as it is published, and views are made again each time."""
        if passed := self.unjudged.keys() & set(clean):
            self.unjudged.discard(passed)

    def forget(self, keys: Collection[str]) -> None:
        """See `Workspace`: what was written stands in the run's own schema, which the next run clears before it builds."""

    @contextmanager
    def built(self, catalog: Catalog) -> Iterator[BuiltInTrino]:
        """See `Workspace`."""
        yield BuiltInTrino(self.request, self.session, self.schemas, catalog)

    def explain(self, message: str) -> str:
        """See `Workspace`: what Trino says, its query, and the limit where it was one."""
        return self.messages.explain(message)

    def held_by(self, message: str) -> str | None:
        """See `Workspace`: a cluster is there for everybody."""
        return None

    def is_transient(self, message: str) -> bool:
        """See `Workspace`: nodes that went away, a full queue."""
        return self.messages.is_transient(message)

    def said(self, error: Exception) -> str | None:
        """See `Workspace`: what Trino says ends the run, see `failure`."""
        return None

    def failure(self, error: Exception) -> RunError | None:
        """See `Workspace`."""
        return self.messages.failure(error)
