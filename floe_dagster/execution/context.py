"""What one run is given: who it is, what it is asked for, and whom it tells."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from floe_dagster.execution.audit import Audit
from floe_dagster.execution.dbt_process import DbtProgram
from floe_dagster.execution.results import Built, Published
from floe_dagster.iceberg.publication import PublicationResult
from floe_dagster.schemas.product_index import Asset

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """By what a run, and its attempts, are known.

    Args:
        run_id: Of the run.
        group: Id of the run that began it all; a retry or a re-execution shares it.
        is_resumed: Whether the run goes on with what an earlier attempt has begun.
        properties: Further ids of the run, to be kept in the snapshots' properties.
    """

    run_id: str
    group: str
    is_resumed: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)

    def mark(self, digest: str) -> dict[str, str]:
        """Return the snapshot properties by which attempts of the same run know each other's work.

        Args:
            digest: Of the compiled sources: another state's work counts for nothing.
        """
        return {"floe.run-group": self.group, "floe.source-digest": digest}


@dataclass(frozen=True, slots=True)
class Selection:
    """What a run is asked for.

    Args:
        assets: dbt's unique ids of what is to be built.
        tests: dbt's unique ids of the tests that are asked for; others that a table waits for run as well, and are yielded.
        repeats_carried_over: Whether what an earlier attempt has recorded is yielded once more: somebody waits for it.
    """

    assets: frozenset[str]
    tests: frozenset[str]
    repeats_carried_over: bool = False


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a person asked of the run.

    Args:
        full_refresh: Rebuild incremental models and seeds from nothing.
        vars: dbt variables.
    """

    full_refresh: bool = False
    vars: Mapping[str, Any] = field(default_factory=dict)


class EarlierAttempts(Protocol):
    """What earlier attempts of the run have recorded where results are kept; a run that is not resumed does not ask."""

    def recorded(self, snapshots: Mapping[str, int]) -> set[str]:
        """Return the assets whose publication is recorded.

        Args:
            snapshots: Snapshot that an earlier attempt has committed, by dbt's unique id of the asset.
        """

    def checked(self, tests: Collection[str]) -> set[str]:
        """Return the tests whose result is recorded.

        Args:
            tests: dbt's unique ids.
        """


class Observer(Protocol):
    """Is told of a run while it goes on. What it does must not fail the run."""

    def catalog_opened(self, catalog: Catalog) -> None:
        """Take the catalog in which tables stand.

        Args:
            catalog: From `open_catalog`.
        """

    def dbt_event(self, event: Mapping[str, Any]) -> None:
        """Take what dbt says while it runs.

        Args:
            event: dbt's structured log event.
        """

    def audited(self, outcome: Audit) -> None:
        """Take what dbt's results say of a phase.

        Args:
            outcome: Of the audit.
        """

    def publishing(self, asset: Asset) -> AbstractContextManager[list[PublicationResult]]:
        """Be told that one table is being published; called from several threads.

        Args:
            asset: Of the index.

        Returns:
            A context with a list that takes the result.
        """

    def done(self, built: Built | Published) -> None:
        """Take that an asset stands, before the run yields it.

        Args:
            built: What the run yields.
        """

    def refused(self, key: str, reason: str) -> None:
        """Take that an asset failed, or is not published.

        Args:
            key: dbt's unique id.
            reason: For people.
        """

    def requests(self, counts: Mapping[str, int]) -> None:
        """Take how many requests the catalog took.

        Args:
            counts: By what they were for.
        """

    def ended(self, error: BaseException | None) -> None:
        """Take that the run is over.

        Args:
            error: What ended it; None where it came to its end.
        """


@dataclass(frozen=True, slots=True)
class RunContext:
    """All that a run needs besides what was compiled.

    Args:
        identity: Who it is.
        selection: What it is asked for.
        options: What a person asked of it.
        dbt: Which dbt it starts, and how.
        open_catalog: Opens the catalog where tables are registered; raises `CatalogError`.
        earlier: What earlier attempts have recorded.
        observer: Who is told of it.
        log: Takes what people read.
    """

    identity: RunIdentity
    selection: Selection
    options: RunOptions
    dbt: DbtProgram
    open_catalog: Callable[[], Catalog]
    earlier: EarlierAttempts
    observer: Observer
    log: logging.Logger
