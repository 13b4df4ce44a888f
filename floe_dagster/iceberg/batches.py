"""Up to when the batches of a microbatch model stand in its published table.

dbt builds the last batches before now and no others, whatever has become of those before them. So a publication notes where its
batches end, and the next run goes on from there: a batch that failed, or whose run failed or never was, is built.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from floe_dagster.iceberg.commit import PUBLICATION_ID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.table import Table

BATCHES_UNTIL = "floe.batches-until"
"""Snapshot property: the end of the last batch, in UTC; all batches before it stand in the table."""


def batches_until(table: Table) -> datetime | None:
    """Return where the batches of a table's rows end; None where nobody has published rows.

    Args:
        table: Of a microbatch model, as it stands; one that was rolled back has fewer batches again.
    """
    snapshot, published = table.current_snapshot(), None
    while snapshot is not None:
        summary: Mapping[str, Any] = snapshot.summary.additional_properties if snapshot.summary else {}
        if noted := summary.get(BATCHES_UNTIL):
            return datetime.fromisoformat(noted)
        if published is None and PUBLICATION_ID in summary:
            # Published by a version that noted nothing: its batches went up to its run, which began a little earlier.
            published = datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC)
        parent = snapshot.parent_snapshot_id
        snapshot = table.snapshot_by_id(parent) if parent is not None else None
    return published


def batches_property(table: Table) -> dict[str, str]:
    """Return what a snapshot that changes no batch has to note, so that it is not lost with the snapshots before it.

    Args:
        table: As it stands.
    """
    snapshot = table.current_snapshot()
    summary = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
    return {BATCHES_UNTIL: summary[BATCHES_UNTIL]} if BATCHES_UNTIL in summary else {}
