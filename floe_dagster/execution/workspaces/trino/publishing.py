"""What dbt has built on Trino: described, copied where it has to be, and promoted to the published tables."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from floe_dagster.engines.errors import EngineError
from floe_dagster.execution.description import RelationColumns, Relations
from floe_dagster.execution.results import Link, RelationDescription
from floe_dagster.execution.workspaces.base import PublicationRequest, WorkspaceRequest
from floe_dagster.execution.workspaces.trino.copies import Copies, written
from floe_dagster.execution.workspaces.trino.session import TrinoSession
from floe_dagster.iceberg.clones import drop_clone
from floe_dagster.iceberg.promotion import promote
from floe_dagster.iceberg.publication import PublicationResult
from floe_dagster.schemas.product_index import Asset

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog


class BuiltInTrino:
    """What stands in the audit schema.

    Args:
        request: What the workspace was made from.
        session: Of the run.
        schemas: Where dbt builds.
        catalog: From `open_catalog`.
    """

    def __init__(
        self, request: WorkspaceRequest, session: TrinoSession, schemas: Sequence[str], catalog: Catalog
    ) -> None:
        self._session = session
        self._catalog = catalog
        self._log = request.log
        # Before anything is promoted: a table that gets its published name stands here no more.
        looked_at = [
            *schemas,
            *([request.slug] if catalog.namespace_exists(request.slug) else []),
        ]
        self._copies = Copies(session)
        self._away: EngineError | None = None
        self.columns: RelationColumns = {}
        try:
            self.columns = session.warehouse.columns(looked_at)
        except EngineError as error:
            if not error.transient:
                raise
            # What it has built is in the catalog, which publishes it without Trino's help.
            self._away = error
            self._log.warning(
                f"what passed its tests is published, without columns of views and seeds, column lineage and costs: {error}"
            )
        self._relations = Relations(
            self.columns, self._count, request.assets, request.slug, request.engine.dialect
        )

    def _count(self, asset: Asset) -> int | None:
        # A published table's rows are counted in its snapshot.
        if self._away or asset.published:
            return None
        return self._session.warehouse.count(asset.relation)

    def columns_of(self, asset: Asset) -> Mapping[str, str]:
        """See `BuiltRelations`."""
        return self._relations.columns_of(asset)

    def describe(self, asset: Asset, result: Mapping[str, Any]) -> RelationDescription:
        """See `BuiltRelations`: with what the model's query took."""
        description = self._relations.describe(asset, result)
        query_id = str((result.get("adapter_response") or {}).get("query_id") or "")
        if not query_id:
            return description
        facts: dict[str, str | int | float | Link] = {
            "trino/query_id": query_id,
            "trino/query": Link(self._session.access.query_url(query_id)),
        }
        if cost := self._session.queries.cost(query_id, ask=not self._away):
            facts |= {
                "trino/seconds": cost.elapsed_seconds,
                "trino/queued_seconds": cost.queued_seconds,
                "trino/cpu_seconds": cost.cpu_seconds,
                "trino/peak_memory_bytes": cost.peak_memory_bytes,
                "trino/read_bytes": cost.read_bytes,
                "trino/written_bytes": cost.written_bytes,
                "trino/splits": cost.splits,
            }
        return replace(description, facts=facts)

    def publisher(self) -> TrinoPublisher:
        """See `BuiltRelations`."""
        return TrinoPublisher(self._session, self._catalog, self._copies, self._log)

    def stage(self, requests: Sequence[PublicationRequest]) -> None:
        """See `BuiltRelations`: a view reads a table that gets its published name, and stands here no more."""
        self._copies.make(requests, self._away)

    def published(self, asset: Asset, result: PublicationResult) -> None:
        """See `BuiltRelations`."""


class TrinoPublisher:
    """Promotes what dbt wrote.

    Args:
        session: Of the run.
        catalog: From `open_catalog`.
        copies: Made before.
        log: Takes what people read.
    """

    def __init__(self, session: TrinoSession, catalog: Catalog, copies: Copies, log: logging.Logger) -> None:
        self._log = log
        self._session = session
        self._catalog = catalog
        self._copies = copies

    def publish(self, request: PublicationRequest) -> PublicationResult:
        """See `Publisher`."""
        asset = request.asset
        clone = self._session.clone_of(asset)
        _database, schema, name = written(asset)
        self._copies.check(asset)
        self._session.lease.check()
        result = promote(
            self._catalog,
            source=(schema, name),
            target=(request.namespace, request.table),
            snapshot_properties=request.snapshot_properties,
            column_docs=request.column_docs,
            options=request.options,
            always_written=self._session.mode(request) == "overwrite" and not asset.is_stateful,
            clone=clone,
        )
        if clone:
            self._forget((schema, name))
        return result

    def _forget(self, clone: tuple[str, str]) -> None:
        try:
            drop_clone(self._catalog, clone)
        except Exception as error:  # it is published; the end of the run takes the clone away
            self._log.warning(f"the clone {'.'.join(clone)} is left for the end of the run: {error}")

    def interrupt(self) -> None:
        """See `Publisher`."""
        self._session.queries.cancel()

    def close(self) -> None:
        """See `Publisher`."""
