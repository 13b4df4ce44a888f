"""Assets, checks and whole indexes for tests: what a test does not state has a plain value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from floe_dagster.schemas.product_index import Asset, Check, ProductFacts, ProductIndex


def asset(unique_id: str, *deps: str, **stated: Any) -> Asset:
    """Return a model of the product `shop` that DuckDB builds as a table and that is published.

    Args:
        unique_id: Its last part is the model's name.
        deps: Ids of what it reads.
        stated: Fields of the asset.
    """
    name = stated.get("name", unique_id.rpartition(".")[2])
    plain = {
        "name": name,
        "type": "model",
        "materialized": "table",
        "published": True,
        "engine": "duckdb",
        "relation": ("shop", "main", name),
        "deps": deps,
        "file": f"models/{name}.sql",
    }
    return Asset(id=unique_id, **{**plain, **stated})


def check(unique_id: str, reads: str, withholds: str = "", **stated: Any) -> Check:
    """Return a data test that is an error where it fails, shown with the first asset that it withholds.

    Args:
        unique_id: Its name, too.
        reads: Ids of the assets that it reads, with spaces between.
        withholds: Ids of the assets that it withholds; those that it reads when empty.
        stated: Fields of the check.
    """
    judged = tuple(withholds.split() or reads.split())
    plain = {"name": unique_id, "asset": judged[0], "reads": tuple(reads.split()), "withholds": judged}
    return Check(id=unique_id, **{**plain, **stated})


def product_index(
    assets: Iterable[Asset] = (),
    checks: Iterable[Check] = (),
    *,
    functions: Iterable[str] = (),
    **stated: Any,
) -> ProductIndex:
    """Return the index of the product `shop`.

    Args:
        assets: Of the product.
        checks: Of the product.
        functions: dbt's unique ids.
        stated: Facts of the product.
    """
    plain = {"slug": "shop", "name": "shop", "version": "1.0.0", "owner": "shop@example.com"}
    return ProductIndex(ProductFacts(**{**plain, **stated}), tuple(assets), tuple(checks), tuple(functions))
