"""Commits that are safe to repeat.

Every publication has an id of its own in its snapshot's summary. Where the outcome of a commit is unknown (a connection
that was cut, a server that restarted), the table is looked at before anything is tried again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from floe_dagster.errors import FloeError
from floe_dagster.iceberg.errors import CatalogError, NotUsableError
from floe_dagster.iceberg.pyiceberg_private import remove_uncommitted, take_producers

if TYPE_CHECKING:
    from pyiceberg.table import Table, Transaction

PUBLICATION_ID = "floe.publication-id"
ATTEMPTS = 8
PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 8.0


class ConflictError(FloeError):
    """Somebody else changed the table first; nothing of ours was committed."""


class UnknownOutcomeError(FloeError):
    """The commit may have landed, or not."""


def commit(transaction: Transaction) -> Table:
    """Commit once.

    PyIceberg would commit again by itself after a conflict, with the removed files of the plan it was given and
    somebody else's new rows beside ours; here a conflict leads to a new plan.

    Raises:
        ConflictError: Others were first.
        UnknownOutcomeError: It may have landed.
    """
    from pyiceberg import exceptions as iceberg
    from requests import RequestException

    producers = take_producers(transaction)
    try:
        return transaction.commit_transaction()
    except Exception as error:
        is_gone = isinstance(error, iceberg.RESTError) and "NoSuchTable" in str(error)
        if is_conflict(error) or is_gone or isinstance(error, iceberg.NoSuchTableError):
            for producer in producers:
                remove_uncommitted(producer)
            raise ConflictError(str(error)) from error
        unknown = (
            iceberg.CommitStateUnknownException,
            iceberg.ServiceUnavailableError,
            iceberg.ServerError,
            iceberg.TooManyRequestsError,
            RequestException,
        )
        if isinstance(error, unknown) or (
            isinstance(error, CatalogError) and not isinstance(error, NotUsableError)
        ):
            raise UnknownOutcomeError(str(error)) from error
        raise


def is_conflict(error: BaseException) -> bool:
    """Tell whether an error means that somebody else was first, and nothing of ours was committed."""
    from pyiceberg.exceptions import (
        CommitFailedException,
        NamespaceAlreadyExistsError,
        TableAlreadyExistsError,
        ValidationException,
    )
    from sqlalchemy.exc import IntegrityError, OperationalError

    # Two that make the same namespace or table at once: the second finds it when it looks again.
    conflicts = (
        CommitFailedException,
        TableAlreadyExistsError,
        NamespaceAlreadyExistsError,
        ValidationException,
        IntegrityError,
        ConflictError,
    )
    if isinstance(error, conflicts):
        return True
    return isinstance(error, OperationalError) and "locked" in str(error)


def pause(attempt: int) -> None:
    """Wait before the next attempt, longer each time, and not in step with others."""
    import random

    seconds = min(PAUSE_SECONDS * 2**attempt, LONGEST_PAUSE_SECONDS)
    time.sleep(seconds * random.uniform(0.75, 1.25))


def find_snapshot(table: Table, properties: Mapping[str, str]) -> int | None:
    """Return the id of the newest snapshot whose summary has all of `properties`."""
    for snapshot in reversed(table.metadata.snapshots):
        summary = snapshot.summary
        if summary is not None and all(summary.get(key) == value for key, value in properties.items()):
            return snapshot.snapshot_id
    return None


def summary_of(table: Table, snapshot_id: int | None) -> Mapping[str, Any]:
    """Return a snapshot's summary as a plain mapping."""
    snapshot = table.metadata.snapshot_by_id(snapshot_id) if snapshot_id is not None else None
    if snapshot is None or snapshot.summary is None:
        return {}
    return {"operation": snapshot.summary.operation.value, **snapshot.summary.additional_properties}
