"""The product index as JSON: how a bundle holds it.

Every process that loads a product reads it, 5,000 models with 10,000 tests in about a tenth of a second, so each field is
named here once for writing and once for reading. Models of pydantic, which would do it by themselves, take twice as long.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson

from floe_dagster.schemas.product_index import (
    NO_SETTINGS,
    Asset,
    Check,
    Column,
    ColumnRules,
    Freshness,
    Lifecycle,
    ProductFacts,
    ProductIndex,
    Relation,
    Schedule,
    TableSettings,
)

INDEX_VERSION = 1
"""It rises where what is written now would be misread by whoever reads the version before.

An index without one is read as version 0. A field that is only added raises nothing: its reader has a default for it, and
leaves out what it does not know.
"""


def index_to_json(index: ProductIndex) -> bytes:
    """Return an index as JSON, for `index_from_json`.

    Args:
        index: What was compiled.
    """
    return orjson.dumps(
        {
            "version": INDEX_VERSION,
            "product": _product_values(index.product),
            "assets": [_asset_values(asset) for asset in index.assets],
            "checks": [_fields(check) for check in index.checks],
            "functions": index.functions,
        }
    )


def index_from_json(source: bytes, *, default_engine: Callable[[], str]) -> ProductIndex:
    """Read an index of this version or of an earlier one.

    Args:
        source: What `index_to_json` gave.
        default_engine: Gives the engine of assets that name none; asked where the index is that old.

    Raises:
        ValueError: It is damaged, or of a later version. The message begins with a verb, and says what to do.
    """
    try:
        with _without_collection():
            document = orjson.loads(source)
            version = document.get("version", 0)
            if isinstance(version, int) and 0 <= version <= INDEX_VERSION:
                return _index(document, default_engine)
    except KeyError as error:
        raise ValueError(f"is damaged: it has no {error}. Compile the product again.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"is damaged: {error}. Compile the product again.") from error
    raise ValueError(
        f"has version {version!r}, and this floe-dagster reads versions up to {INDEX_VERSION}. Upgrade floe-dagster, or "
        "compile the product with this version."
    )


@contextmanager
def _without_collection() -> Iterator[None]:
    """Keep Python's collector from looking through what is being made, all of which stays: half of the time goes there."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _index(document: Mapping[str, Any], default_engine: Callable[[], str]) -> ProductIndex:
    rows = document["assets"]
    # Written before there were several engines: all is on the default one.
    engine = default_engine() if any("engine" not in row for row in rows) else ""
    return ProductIndex(
        product=_product(document["product"]),
        assets=tuple([_asset(row, engine) for row in rows]),
        checks=tuple([_check(row) for row in document["checks"]]),
        functions=tuple(document.get("functions", ())),
    )


def _product(row: Mapping[str, Any]) -> ProductFacts:
    schedule, freshness = row["schedule"], row["freshness"]
    return ProductFacts(
        slug=row["slug"],
        name=row["name"],
        version=row["version"],
        owner=row["owner"],
        description=row["description"],
        labels=row["labels"],
        schedule=Schedule(schedule["cron"], schedule["timezone"], schedule["enabled"]) if schedule else None,
        freshness=Freshness(freshness["fail_seconds"], freshness["warn_seconds"]) if freshness else None,
        resources=row.get("resources"),
        preset=row.get("preset"),
        repository=row.get("repository"),
        lifecycle=_lifecycle(row.get("lifecycle") or {}),
        audited=bool(row.get("audited")),
        columns=_column_rules(row.get("columns") or {}),
    )


def _column_rules(row: Mapping[str, Any]) -> ColumnRules:
    return ColumnRules(
        descriptions=row.get("descriptions", "off"),
        personal_data=row.get("personal_data", "off"),
        types=row.get("types", "off"),
        personal_names=tuple(row.get("personal_names", ())),
        exempt=tuple((name, until) for name, until in row.get("exempt", ())),
    )


def _lifecycle(row: Mapping[str, Any]) -> Lifecycle:
    return Lifecycle(
        schema_evolution=row.get("schema_evolution"),
        stale_table_recovery_mode=row.get("stale_table_recovery_mode"),
        data_retention_days=row.get("data_retention_days"),
        default_ttl_hours=row.get("default_ttl_hours"),
        snapshot_keep_last=row.get("snapshot_keep_last"),
    )


def _asset(row: Mapping[str, Any], default_engine: str) -> Asset:
    database, schema, name = row["relation"]
    settings, relations, described = row.get("table"), row.get("relations"), row.get("described")
    return Asset(
        id=row["id"],
        name=row["name"],
        type=row["type"],
        materialized=row["materialized"],
        published=row["published"],
        engine=row.get("engine", default_engine),
        relation=(database, schema, name),
        deps=tuple(row["deps"]),
        group=row["group"],
        description=row["description"],
        tags=tuple(row["tags"]),
        owners=tuple(row["owners"]),
        file=row["file"],
        checksum=row.get("checksum", ""),
        described=(described[0], described[1]) if described else None,
        table=_table(settings) if settings else NO_SETTINGS,
        unique_key=tuple(row.get("unique_key", ())),
        batch_size=row.get("batch_size", ""),
        columns=tuple([_column(column) for column in row["columns"]]),
        relations={engine: _relation(parts) for engine, parts in relations.items()} if relations else {},
    )


def _relation(parts: list[str]) -> Relation:
    database, schema, name = parts
    return database, schema, name


def _column(row: Mapping[str, Any]) -> Column:
    classification = row["classification"]
    return Column(
        row["name"],
        row["type"],
        row["description"],
        tuple(row["tags"]),
        # An index without a version has what the YAML had: a list or a number too.
        str(classification) if classification else None,
    )


def _table(row: Mapping[str, Any]) -> TableSettings:
    def listed(name: str) -> tuple[str, ...] | None:
        return None if (values := row.get(name)) is None else tuple(values)

    return TableSettings(
        partition_by=listed("partition_by"),
        sort_by=listed("sort_by"),
        write_mode=row.get("write_mode"),
        key=listed("key"),
        properties=row.get("properties"),
        expire_by=row.get("expire_by"),
    )


def _check(row: Mapping[str, Any]) -> Check:
    reads = tuple(row["reads"])
    withholds = row.get("withholds")
    return Check(
        id=row["id"],
        name=row["name"],
        asset=row["asset"],
        reads=reads,
        # Written before a test could withhold anything else than what it reads.
        withholds=reads if withholds is None else tuple(withholds),
        type=row["type"],
        severity=row["severity"],
        may_warn=row.get("may_warn", True),
        kind=row["kind"],
        column=row["column"],
        description=row["description"],
        file=row["file"],
    )


def _product_values(product: ProductFacts) -> dict[str, Any]:
    return {**_fields(product), "lifecycle": _stated(product.lifecycle)}


def _asset_values(asset: Asset) -> dict[str, Any]:
    values = {**_fields(asset), "table": _stated(asset.table)}
    if not asset.relations:
        del values["relations"]
    return values


def _fields(held: Any) -> dict[str, Any]:
    # What it holds in turn, such as columns, orjson writes by itself: it knows dataclasses.
    return {name: getattr(held, name) for name in held.__slots__}


def _stated(held: Any) -> dict[str, Any]:
    return {name: value for name, value in _fields(held).items() if value is not None}
