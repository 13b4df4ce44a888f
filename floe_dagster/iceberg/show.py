"""Rows and snapshots of a published table, for people."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog


@dataclass(frozen=True, slots=True)
class TableView:
    """What `show_table` gives.

    Args:
        columns: Names.
        rows: Values, at most as many as were asked for.
        snapshots: Id, time (ISO 8601, UTC), operation, rows, engine, run and what publication noted of each, newest first.
        location: Of the table.
    """

    columns: list[str]
    rows: list[list[Any]]
    snapshots: list[dict[str, Any]]
    location: str


def show_table(catalog: Catalog, namespace: str, table: str, limit: int) -> TableView:
    """Return the first rows and the snapshots of a table.

    Raises:
        pyiceberg.exceptions.NoSuchTableError: It does not exist.
    """
    loaded = catalog.load_table((namespace, table))
    data = loaded.scan(limit=limit).to_arrow()
    snapshots = []
    for snapshot in reversed(loaded.metadata.snapshots):
        summary = snapshot.summary
        written = summary.additional_properties if summary else {}
        properties = {name: value for name, value in written.items() if name.startswith("floe.")}
        snapshots.append(
            {
                "snapshot": str(snapshot.snapshot_id),
                "committed": datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC).isoformat(
                    timespec="seconds"
                ),
                "operation": summary.operation.value if summary else None,
                "rows": int(written["total-records"]) if "total-records" in written else None,
                "engine": properties.get("floe.engine"),
                "run": properties.get("floe.dagster-run-id"),
                "properties": properties,
            }
        )
    rows = [list(row.values()) for row in data.to_pylist()]
    return TableView(data.column_names, rows, snapshots, loaded.location())
