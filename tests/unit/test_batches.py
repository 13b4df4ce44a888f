"""Where the batches of a microbatch model go on, and that none is lost between two runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.types import IntegerType, NestedField

from floe_dagster.compilation.dbt_batches import continue_batches, continue_variable
from floe_dagster.execution.batches import batch_properties, missing_batches, table_ends
from floe_dagster.iceberg.batches import BATCHES_UNTIL, batches_property, batches_until
from floe_dagster.iceberg.commit import PUBLICATION_ID
from floe_dagster.schemas.product_index import Asset

DAY = timedelta(days=1)
NOON = datetime(2026, 5, 10, 12, tzinfo=UTC)
TODAY = datetime(2026, 5, 10, tzinfo=UTC)


def start_of(end: datetime | None, monkeypatch: pytest.MonkeyPatch, **facts: Any) -> datetime:
    """Return where dbt begins with the batches of a model whose table's batches end somewhere."""
    from dbt.artifacts.resources.types import BatchSize
    from dbt.contracts.graph.nodes import NodeConfig
    from dbt.materializations.incremental.microbatch import MicrobatchBuilder

    for name, value in continue_variable({"model.shop.m": end} if end else {}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(MicrobatchBuilder, "build_start_time", MicrobatchBuilder.build_start_time)
    continue_batches()
    config = NodeConfig(
        materialized="incremental",
        incremental_strategy="microbatch",
        batch_size=BatchSize.day,
        begin=datetime(2026, 1, 1, tzinfo=UTC),
        lookback=facts.get("lookback", 1),
    )
    model: Any = SimpleNamespace(name="m", unique_id="model.shop.m", config=config)
    builder = MicrobatchBuilder(model, facts.get("is_incremental", True), None, None, default_end_time=NOON)
    return builder.build_start_time(builder.build_end_time())


@pytest.mark.parametrize(
    ("end", "lookback", "start"),
    [
        (None, 1, TODAY - DAY),
        # A run of the same day, and one of the day before, begin as dbt does.
        (TODAY + DAY, 1, TODAY - DAY),
        (TODAY + DAY, 0, TODAY),
        # What was not built since then is, with `lookback` before it as ever.
        (TODAY, 0, TODAY - DAY),
        (TODAY - 4 * DAY, 0, TODAY - 5 * DAY),
        (TODAY - 4 * DAY, 2, TODAY - 7 * DAY),
    ],
)
def test_batches_go_on_where_the_table_ends(
    end: datetime | None, lookback: int, start: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert start_of(end, monkeypatch, lookback=lookback) == start


def test_a_first_build_begins_where_the_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = start_of(TODAY - 4 * DAY, monkeypatch, is_incremental=False)
    assert begun == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    made = SqlCatalog("test", uri=f"sqlite:///{tmp_path / 'catalog.db'}", warehouse=f"file://{tmp_path}")
    made.create_namespace("shop")
    made.create_table("shop.m", Schema(NestedField(1, "id", IntegerType())))
    return made


def commit(catalog: Catalog, properties: dict[str, str]) -> int:
    with (
        catalog.load_table("shop.m").transaction() as transaction,
        transaction.update_snapshot(snapshot_properties=properties).fast_append(),
    ):
        pass
    return int(catalog.load_table("shop.m").metadata.current_snapshot_id or 0)


def test_the_newest_publication_says_where_batches_end(catalog: Catalog) -> None:
    assert batches_until(catalog.load_table("shop.m")) is None
    first = commit(catalog, {BATCHES_UNTIL: TODAY.isoformat(), PUBLICATION_ID: "1"})
    commit(catalog, {BATCHES_UNTIL: (TODAY + DAY).isoformat(), PUBLICATION_ID: "2"})
    # Somebody else's commit says nothing of batches.
    commit(catalog, {})
    table = catalog.load_table("shop.m")
    assert batches_until(table) == TODAY + DAY
    # One that was rolled back has fewer.
    table.manage_snapshots().set_current_snapshot(first).commit()
    assert batches_until(catalog.load_table("shop.m")) == TODAY


def test_a_compaction_hands_on_where_batches_end(catalog: Catalog) -> None:
    commit(catalog, {BATCHES_UNTIL: TODAY.isoformat()})
    assert batches_property(catalog.load_table("shop.m")) == {BATCHES_UNTIL: TODAY.isoformat()}


def test_a_table_of_an_earlier_version_has_the_batches_of_its_time(catalog: Catalog) -> None:
    snapshot = commit(catalog, {PUBLICATION_ID: "1"})
    table = catalog.load_table("shop.m")
    known = table.snapshot_by_id(snapshot)
    assert known is not None
    assert batches_until(table) == datetime.fromtimestamp(known.timestamp_ms / 1000, UTC)


def asset(key: str, **facts: Any) -> Asset:
    return Asset(
        id=key,
        name=key,
        type="model",
        materialized="incremental",
        published=True,
        engine="duckdb",
        relation=("shop", "main", key),
        **facts,
    )


def test_tables_that_are_not_there_have_no_end(catalog: Catalog) -> None:
    commit(catalog, {BATCHES_UNTIL: TODAY.isoformat()})
    assets = [asset("m", batch_size="day"), asset("new", batch_size="day"), asset("other")]
    assert table_ends(catalog, "shop", assets) == {"m": TODAY}


def result(*batches: tuple[datetime, datetime]) -> dict[str, Any]:
    built = [[begin.isoformat(), end.isoformat()] for begin, end in batches]
    return {"status": "success", "batch_results": {"successful": built, "failed": []}}


def test_a_snapshot_notes_the_end_of_its_last_batch() -> None:
    assert batch_properties(result((TODAY, TODAY + DAY), (TODAY - DAY, TODAY))) == {
        BATCHES_UNTIL: (TODAY + DAY).isoformat()
    }
    assert batch_properties({"status": "success", "batch_results": None}) == {}
    assert batch_properties({"status": "success"}) == {}


def test_a_model_whose_batches_leave_a_gap_is_told(catalog: Catalog) -> None:
    ends = {"gap": TODAY - 3 * DAY, "whole": TODAY - 3 * DAY, "none": TODAY}
    told = missing_batches(
        ends,
        {
            "gap": result((TODAY, TODAY + DAY)),
            "whole": result((TODAY - 3 * DAY, TODAY), (TODAY, TODAY + DAY)),
        },
    )
    assert told.keys() == {"gap"}
    assert "from 2026-05-07 00:00 to 2026-05-10 00:00" in told["gap"] and "--full-refresh" in told["gap"]
