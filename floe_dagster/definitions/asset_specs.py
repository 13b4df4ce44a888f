"""Asset and check specs from the asset index of a bundle."""

from __future__ import annotations

import re
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from floe_dagster.definitions.source_links import SourceLinks
from floe_dagster.home import display_path
from floe_dagster.schemas.product_index import Asset, Freshness, ProductIndex

_NOT_IN_TAGS = re.compile(r"[^A-Za-z0-9_.-]")


def asset_specs(index: ProductIndex, product_dir: Path) -> dict[str, dg.AssetSpec]:
    """Return a spec per dbt model, seed and snapshot, by dbt's unique id.

    Args:
        index: Of the product.
        product_dir: Where the sources are edited; code references point there.
    """
    product = index.product
    slug = product.slug
    keys = {asset.id: asset_key(slug, asset.name) for asset in index.assets}
    labels = {_tag(f"floe/{name}"): _tag_part(value) for name, value in product.labels.items()}
    freshness = _freshness(product.freshness)
    links = SourceLinks.of_product(product.repository, product_dir)
    specs = {}
    for asset in index.assets:
        specs[asset.id] = dg.AssetSpec(
            key=keys[asset.id],
            deps=[keys[upstream] for upstream in asset.deps],
            description=asset.description or None,
            group_name=asset.group,
            owners=list(asset.owners),
            tags={**labels, **{_tag(tag): "" for tag in asset.tags}},
            kinds={"dbt", asset.type if asset.type != "model" else asset.materialized}
            | ({"iceberg"} if asset.published else {asset.engine}),
            freshness_policy=freshness if asset.published else None,
            skippable=True,
            metadata=_metadata(asset, product_dir, links) | {"floe/engine": asset.engine},
        )
    return specs


def check_specs(index: ProductIndex) -> dict[str, dg.AssetCheckSpec]:
    """Return a check spec per dbt test, by dbt's unique id; error tests block, warn tests do not."""
    slug = index.product.slug
    names = {asset.id: asset.name for asset in index.assets}
    return {
        check.id: dg.AssetCheckSpec(
            name=check.name,
            asset=asset_key(slug, names[check.asset]),
            description=check.description or None,
            additional_deps=[asset_key(slug, names[up]) for up in check.reads if up != check.asset],
            blocking=check.is_error,
        )
        for check in index.checks
    }


def asset_key(slug: str, name: str) -> dg.AssetKey:
    """Return the stable key of a model: `[product_slug, model]`."""
    return dg.AssetKey([slug, name])


def _metadata(asset: Asset, product_dir: Path, links: SourceLinks) -> dict[str, Any]:
    metadata: dict[str, Any] = {"dagster/code_references": _code_references(asset, product_dir, links)}
    if asset.columns:
        metadata["dagster/column_schema"] = dg.TableSchema(
            columns=[
                dg.TableColumn(
                    name=column.name,
                    type=column.type or "?",
                    description=column.description or None,
                    tags={_tag(tag): "" for tag in column.tags}
                    | ({"classification": column.classification} if column.classification else {}),
                )
                for column in asset.columns
            ]
        )
    return metadata


def _code_references(asset: Asset, product_dir: Path, links: SourceLinks) -> dg.CodeReferencesMetadataValue:
    places: list[tuple[str, int, str | None]] = [(asset.file, 1, None)]
    if asset.described:
        file, line = asset.described
        places.append((file, line, "description"))
    # That code references are in beta is no news to a user.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        references: list[Any] = [
            dg.LocalFileCodeReference(file_path=str(product_dir / file), line_number=line, label=label)
            for file, line, label in places
        ]
        for file, line, label in places if links.repository else ():
            address = links.url(display_path(product_dir / file, links.project_root), line)
            if address:
                references.append(dg.UrlCodeReference(url=address, label=label))
        return dg.CodeReferencesMetadataValue(code_references=references)


def _freshness(window: Freshness | None) -> dg.FreshnessPolicy | None:
    if window is None:
        return None
    warn = window.warn_seconds
    return dg.FreshnessPolicy.time_window(
        fail_window=timedelta(seconds=window.fail_seconds),
        warn_window=timedelta(seconds=warn) if warn else None,
    )


def _tag(text: str) -> str:
    """Return a key of a tag as Dagster takes it: a name, or a namespace and a name."""
    return "/".join(_tag_part(part) or "_" for part in text.split("/", 1))


def _tag_part(text: str) -> str:
    return _NOT_IN_TAGS.sub("_", text)[:63]
