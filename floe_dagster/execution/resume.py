"""What an earlier attempt of the same run has done, so that a retry repeats none of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from floe_dagster.execution.results import CarriedOver
from floe_dagster.iceberg.publication import find_snapshot
from floe_dagster.schemas.product_index import Asset

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog


@dataclass(slots=True)
class Earlier:
    """What stands already.

    Args:
        snapshots: Snapshot id of each table that was published, by unique id of the asset.
        recorded: Those whose publication is recorded where results are kept.
        checks: Unique ids of the tests of these tables whose result is recorded.
    """

    snapshots: dict[str, int] = field(default_factory=dict)
    recorded: set[str] = field(default_factory=set)
    checks: set[str] = field(default_factory=set)


def published_earlier(
    catalog: Catalog, namespace: str, assets: Iterable[Asset], mark: Mapping[str, str]
) -> dict[str, int]:
    """Return the snapshot of each table that an earlier attempt has published, by unique id of the asset.

    The catalog is asked, since a process that was killed between the commit and its record has published all the same.

    Args:
        catalog: From `open_catalog`.
        namespace: Of the product.
        assets: Published ones, of the index.
        mark: Snapshot properties by which attempts of the same run know each other's work.
    """
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    found: dict[str, int] = {}
    for asset in assets:
        try:
            table = catalog.load_table(asset.identifier(namespace))
        except (NoSuchTableError, NoSuchNamespaceError, FileNotFoundError):
            # One whose files are gone is found out when it is published.
            continue
        snapshot = find_snapshot(table, mark)
        if snapshot is not None:
            found[asset.id] = snapshot
    return found


def carried_over(catalog: Catalog, namespace: str, asset: Asset, snapshot_id: int) -> CarriedOver:
    """Return a table that an earlier attempt of the run has published.

    Args:
        catalog: From `open_catalog`.
        namespace: Of the product.
        asset: Of the index.
        snapshot_id: Which one the earlier attempt has committed.
    """
    table = catalog.load_table(asset.identifier(namespace))
    snapshot = table.snapshot_by_id(snapshot_id)
    rows = snapshot.summary["total-records"] if snapshot and snapshot.summary else None
    return CarriedOver(
        asset=asset.id,
        table=f"{namespace}.{asset.name}",
        location=table.location(),
        snapshot_id=snapshot_id,
        rows=int(rows) if rows is not None else None,
    )
