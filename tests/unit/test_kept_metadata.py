"""A transaction whose metadata is kept says after each change what PyIceberg's own would say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Transaction
from pyiceberg.table.update import update_table_metadata
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import LongType, StringType

from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.pyiceberg_private import with_metadata_kept

ROWS = pa.table({"id": [1, 2, 3], "label": ["a", "b", "c"]})


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    catalog = open_catalog(None, None, home=FloeHome(tmp_path))
    catalog.create_namespace("shop")
    return catalog


def add_column(transaction: Transaction) -> None:
    with transaction.update_schema() as schema:
        schema.add_column("more", StringType())


def rename_and_widen(transaction: Transaction) -> None:
    with transaction.update_schema() as schema:
        schema.rename_column("label", "name")
    with transaction.update_schema() as schema:
        schema.add_column("count", LongType())


def partition(transaction: Transaction) -> None:
    with transaction.update_spec() as spec:
        spec.add_field("id", BucketTransform(4), "id_bucket")


def properties(transaction: Transaction) -> None:
    transaction.set_properties({"owner": "somebody"})
    transaction.remove_properties("owner")
    transaction.set_properties({"owner": "another"})


def rows(transaction: Transaction) -> None:
    transaction.append(ROWS)


CHANGES: list[Callable[[Transaction], None]] = [add_column, rename_and_widen, partition, properties, rows]


def described(metadata: Any) -> dict[str, Any]:
    # The moment at which it is asked, which PyIceberg writes into each answer.
    return {**metadata.model_dump(), "last-updated-ms": None}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("is_new", [True, False], ids=["made", "changed"])
def test_each_change_is_seen(catalog: Catalog, change: Callable[[Transaction], None], is_new: bool) -> None:
    if is_new:
        transaction = catalog.create_table_transaction(("shop", "orders"), ROWS.schema)
    else:
        table = catalog.create_table(("shop", "orders"), ROWS.schema)
        table.append(ROWS)
        transaction = table.transaction()
    kept = with_metadata_kept(transaction)
    before = kept.table_metadata
    assert kept.table_metadata is before

    change(kept)

    plain = update_table_metadata(kept._table.metadata, kept._updates)
    assert described(kept.table_metadata) == described(plain) != described(before)
    committed = kept.commit_transaction()
    assert committed.schema() == plain.schema()
    assert committed.spec().fields == plain.spec().fields
    assert committed.properties == plain.properties
    # The next look is at what the catalog has now.
    assert described(with_metadata_kept(committed.transaction()).table_metadata) == described(
        committed.metadata
    )
