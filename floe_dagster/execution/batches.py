"""Batches of microbatch models: where a run goes on, and that none is missing between the table and what was built."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from floe_dagster.iceberg.batches import BATCHES_UNTIL, batches_until
from floe_dagster.schemas.product_index import Asset

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog


def table_ends(catalog: Catalog, namespace: str, assets: Collection[Asset]) -> dict[str, datetime]:
    """Return where the batches of published microbatch models end, by unique id.

    Args:
        catalog: From `open_catalog`.
        namespace: Of the product.
        assets: That dbt is about to build.
    """
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    ends = {}
    for asset in assets:
        if not (asset.batch_size and asset.published):
            continue
        try:
            table = catalog.load_table(asset.identifier(namespace))
        except (NoSuchTableError, NoSuchNamespaceError, FileNotFoundError):
            # There is none, or its files are gone, of which its publication tells.
            continue
        if (end := batches_until(table)) is not None:
            ends[asset.id] = end
    return ends


def batches_of(result: Mapping[str, Any]) -> list[tuple[datetime, datetime]]:
    """Return the batches that dbt has built of a model, in their order; none where it has no batches.

    Args:
        result: dbt's result of the model.
    """
    built = (result.get("batch_results") or {}).get("successful") or ()
    return sorted((_time(begin), _time(end)) for begin, end in built)


def batch_properties(result: Mapping[str, Any]) -> dict[str, str]:
    """Return what the snapshot of a model notes of its batches.

    Args:
        result: dbt's result of the model.
    """
    batches = batches_of(result)
    return {BATCHES_UNTIL: max(end for _begin, end in batches).isoformat()} if batches else {}


def missing_batches(ends: Mapping[str, datetime], built: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return which models would lose batches, and why, by unique id.

    Args:
        ends: Where the batches of their tables end.
        built: dbt's result by unique id.
    """
    found = {}
    for key, end in ends.items():
        batches = batches_of(built.get(key, {}))
        if batches and batches[0][0] > end:
            found[key] = (
                f"the batches from {end:%Y-%m-%d %H:%M} to {batches[0][0]:%Y-%m-%d %H:%M} (UTC) were not built: the dbt that the "
                "resource names begins by the clock. Take floe-dagster's own dbt, or run it with --full-refresh"
            )
    return found


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
