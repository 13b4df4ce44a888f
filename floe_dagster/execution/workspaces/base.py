"""Where dbt builds a product, before anybody else can see what it built.

An engine brings a workspace of its own: a DuckDB file of this machine, or a schema of the catalog that is nobody's but the
run's. The run asks the same of each: bring it to where dbt can begin, publish what passed the audit.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.execution.errors import RunError
from floe_dagster.execution.results import RelationDescription
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.publication import PublicationOptions, PublicationResult
from floe_dagster.schemas.compute.engine import Engine
from floe_dagster.schemas.product_index import Asset

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog


@dataclass(frozen=True, slots=True)
class PublicationRequest:
    """One table that is to be published.

    Args:
        asset: Of the index.
        namespace: Iceberg namespace of the product.
        snapshot_properties: Kept in the summary of the snapshot.
        column_docs: Descriptions by column.
        options: What the product and the platform ask; a workspace may know a cheaper way to the same content.
    """

    asset: Asset
    namespace: str
    snapshot_properties: Mapping[str, str]
    column_docs: Mapping[str, str]
    options: PublicationOptions

    @property
    def table(self) -> str:
        """Name of the table in its namespace."""
        return self.asset.name


@dataclass(frozen=True, slots=True)
class WorkspaceRequest:
    """What a workspace is made from.

    Args:
        slug: Of the product.
        engine: Which one.
        config: Its settings, as the artifact holds them.
        field: Where they stand in the manifest.
        profiles: Content of `profiles.yml` for this engine.
        bundle: What was compiled.
        assets: Of the index by unique id, each after those that it reads, as this engine knows them.
        home: The writable folder.
        log: Takes what people read.
        run_id: Of the run.
    """

    slug: str
    engine: Engine
    config: Mapping[str, Any]
    field: str
    profiles: Mapping[str, Any]
    bundle: Bundle
    assets: Mapping[str, Asset]
    home: FloeHome
    log: logging.Logger
    run_id: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """Where dbt can begin.

    Args:
        to_build: Unique ids of what dbt has to build.
        refused: Why an asset cannot be brought to where dbt goes on with it, by unique id. Where there is one, nothing is to be
            built before `prepare` was asked again, without it and what reads it.
    """

    to_build: set[str]
    refused: Mapping[str, str] = field(default_factory=dict)


class Publisher(Protocol):
    """Publishes tables, one after the other; several of them work at once."""

    def publish(self, request: PublicationRequest) -> PublicationResult:
        """Make what dbt built the published table's content.

        Raises:
            PublicationError: It cannot be published as it is; the last snapshot stands.
            CatalogError: The catalog or the storage does not answer.
        """

    def interrupt(self) -> None:
        """End what is being published, from another thread."""

    def close(self) -> None:
        """Give back what it holds."""


class BuiltRelations(Protocol):
    """What dbt has built."""

    def describe(self, asset: Asset, result: Mapping[str, Any]) -> RelationDescription:
        """Describe one relation, published or not.

        Args:
            asset: Of the index.
            result: dbt's result of building it.
        """

    def columns_of(self, asset: Asset) -> Mapping[str, str]:
        """Return the type of each column of one relation, by name; nothing where the engine does not say.

        Args:
            asset: Of the index.
        """

    def stage(self, requests: Sequence[PublicationRequest]) -> None:
        """Do what has to be done of all that will be published while it stands where dbt has built it.

        Args:
            requests: Of what passed the audit.
        """

    def publisher(self) -> Publisher:
        """Return another publisher."""

    def published(self, asset: Asset, result: PublicationResult) -> None:
        """Take note that a table was published."""


class Workspace(Protocol):
    """What a run needs of the engine that it builds with; the class of one is called with a `WorkspaceRequest`.

    Args:
        profiles: Content of `profiles.yml` for this run.
        less_memory: How it takes less of this machine's memory, to be added to a message; empty where it takes none.
    """

    profiles: Mapping[str, Any]
    less_memory: str

    def writing(self, catalog: Catalog) -> AbstractContextManager[None]:
        """Be the only one who builds this product here, for the time of the run.

        Args:
            catalog: From `open_catalog`.

        Raises:
            WorkspaceError: It is not to be had.
        """

    def environment(self) -> Mapping[str, str]:
        """Return what the profile refers to: variables of dbt's environment."""

    def arguments(self) -> Sequence[str]:
        """Return what `dbt build` is told besides the selection."""

    def testable(self, keys: set[str]) -> set[str]:
        """Return those published tables whose tests can run without them being built again.

        Args:
            keys: Unique ids of published assets.
        """

    def missing(self, catalog: Catalog, wanted: set[str]) -> set[str]:
        """Return what `prepare` would have built besides, since `wanted` reads it and it is not there; changes nothing.

        Args:
            catalog: From `open_catalog`.
            wanted: As in `prepare`.
        """

    def prepare(self, catalog: Catalog, wanted: set[str], read: set[str], *, full_refresh: bool) -> Prepared:
        """Bring the workspace to where dbt can begin.

        Args:
            catalog: From `open_catalog`.
            wanted: Unique ids of what is asked for, of this engine.
            read: Unique ids of what tests read besides.
            full_refresh: Whether stateful models begin from nothing.

        Returns:
            What dbt has to build: `wanted`, and what is read, is this engine's, and is missing.
        """

    def judged(self, built: Collection[str], clean: Collection[str]) -> None:
        """Take note of what passed the audit, so that a later run reads nothing that did not.

        Args:
            built: Unique ids of what dbt was asked to build.
            clean: Of what was built and passed, as did all that it reads.
        """

    def forget(self, keys: Collection[str]) -> None:
        """Take note that dbt has changed relations which `prepare` did not prepare: they equal nothing that is published.

        Args:
            keys: Unique ids of assets.
        """

    def built(self, catalog: Catalog) -> AbstractContextManager[BuiltRelations]:
        """Open what dbt has built, to publish it."""

    def explain(self, message: str) -> str:
        """Return what dbt said of a node that failed, in one line for people."""

    def held_by(self, message: str) -> str | None:
        """Return who keeps the engine to itself, in words that say what to do, where that is what dbt said."""

    def is_transient(self, message: str) -> bool:
        """Tell whether trying again may help against what dbt or the engine said."""

    def said(self, error: Exception) -> str | None:
        """Return what the engine says of one relation, in one line; None where the error is not the engine's."""

    def failure(self, error: Exception) -> RunError | None:
        """Return how a run ends with an error of the engine; None where it is none."""
