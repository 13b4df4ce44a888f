"""Clones and their promotion on a real REST catalog; PyIceberg writes them in place of an engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.clones import (
    CLONE_OF,
    clone_id,
    cloned_snapshot,
    drop_clone,
    drop_clones,
    is_clone,
    make_clone,
)
from floe_dagster.iceberg.commit import find_snapshot
from floe_dagster.iceberg.errors import CatalogError, PublicationError
from floe_dagster.iceberg.layout import TableLayout
from floe_dagster.iceberg.promotion import promote
from floe_dagster.iceberg.publication import PublicationOptions, PublicationResult
from tests.services.conftest import Services

MARK = {"floe.run-group": "run-1"}


class Lake:
    """One published table and the place where its clone is written."""

    def __init__(self, catalog: Catalog, namespace: str) -> None:
        self.catalog = catalog
        self.target = (namespace, "orders")
        self.source = (f"floe_audit_{namespace}", "orders")
        for schema in (self.target[0], self.source[0]):
            catalog.create_namespace_if_not_exists(schema)

    @property
    def table(self) -> Table:
        return self.catalog.load_table(self.target)

    def publish_directly(self, ids: list[int]) -> Table:
        rows = pa.table({"id": pa.array(ids, pa.int64()), "name": [f"n{n}" for n in ids]})
        table = self.catalog.create_table_if_not_exists(self.target, rows.schema)
        table.append(rows)
        return self.table

    def clone(self) -> Table:
        return make_clone(self.catalog, self.table, self.source)

    def promote(self, **options: Any) -> PublicationResult:
        docs = options.pop("docs", {"id": "Number of the order."})
        mark = options.pop("mark", MARK)
        always_written, clone = options.pop("always_written", False), options.pop("clone", None)
        return promote(
            self.catalog,
            source=self.source,
            target=self.target,
            snapshot_properties=mark,
            column_docs=docs,
            options=PublicationOptions(**{"product": "shop", **options}),
            always_written=always_written,
            clone=clone,
        )

    def ids(self, table: Table | None = None) -> list[int]:
        ids: list[int] = (table or self.table).scan().to_arrow().column("id").to_pylist()
        return sorted(ids)


@pytest.fixture
def lake(services: Services, home: FloeHome, namespace: str) -> Lake:
    plugins = services.plugins()
    return Lake(open_catalog(plugins["catalog"], plugins["storage"], home=home), namespace)


def rows_of(ids: list[int], **columns: Any) -> pa.Table:
    return pa.table(
        {"id": pa.array(ids, pa.int64()), "name": pa.array([f"n{n}" for n in ids], pa.string()), **columns}
    )


def test_what_is_written_to_a_clone_shows_once_it_is_promoted(lake: Lake) -> None:
    before = lake.publish_directly([1, 2])
    clone = lake.clone()
    assert is_clone(clone) and not is_clone(before) and lake.ids(clone) == [1, 2]
    assert clone.metadata.table_uuid != before.metadata.table_uuid and clone.location() != before.location()
    clone.append(rows_of([3]))
    assert lake.ids() == [1, 2]
    result = lake.promote()
    after = lake.table
    assert lake.ids() == [1, 2, 3]
    assert (result.rows, result.inserted, result.created, result.table) == (
        3,
        1,
        False,
        ".".join(lake.target),
    )
    assert result.written_bytes > 0 and result.written_files == 1 and result.mode == "increment"
    assert find_snapshot(after, MARK) == result.snapshot_id == after.metadata.current_snapshot_id
    current = after.current_snapshot()
    assert current is not None and current.parent_snapshot_id == before.metadata.current_snapshot_id
    assert after.metadata.table_uuid == before.metadata.table_uuid and after.location() == before.location()
    assert CLONE_OF not in after.properties and "write.data.path" not in after.properties
    assert "gc.enabled" not in after.properties and after.properties["floe.product"] == "shop"
    assert after.schema().find_field("id").doc == "Number of the order."
    # Nothing has to be moved: all lies below the published table.
    assert all(
        task.file.file_path.startswith(f"{after.location()}/data") for task in after.scan().plan_files()
    )
    assert drop_clone(lake.catalog, lake.source) and not drop_clone(lake.catalog, lake.source)
    assert lake.ids() == [1, 2, 3]


def test_a_table_that_is_replaced_keeps_its_history_and_may_change_its_schema(lake: Lake) -> None:
    before = lake.publish_directly([1, 2])
    clone = lake.clone()
    with clone.update_schema() as schema:
        schema.union_by_name(rows_of([7], extra=pa.array([1], pa.int64())).schema)
    clone.overwrite(rows_of([7], extra=pa.array([1], pa.int64())))
    result = lake.promote()
    assert result.evolved == ("added extra long",) and result.rows == 1
    assert lake.ids() == [7] and lake.table.scan().to_arrow().column("extra").to_pylist() == [1]
    old = before.metadata.current_snapshot_id
    assert sorted(lake.table.scan(snapshot_id=old).to_arrow().column("id").to_pylist()) == [1, 2]


@pytest.mark.parametrize(("policy", "column"), [("refuse", "added extra long"), ("additive", "dropped name")])
def test_governance_holds_for_what_an_engine_wrote(lake: Lake, policy: str, column: str) -> None:
    lake.publish_directly([1])
    clone = lake.clone()
    with clone.update_schema() as schema:
        schema.union_by_name(rows_of([7], extra=pa.array([1], pa.int64())).schema)
    with clone.update_schema(allow_incompatible_changes=True) as schema:
        schema.delete_column("name")
    clone.overwrite(pa.table({"id": pa.array([7], pa.int64()), "extra": pa.array([1], pa.int64())}))
    with pytest.raises(PublicationError, match=rf"{column}.*{policy}"):
        lake.promote(schema_evolution=policy)
    assert lake.ids() == [1]


def test_who_was_first_is_not_overwritten(lake: Lake) -> None:
    lake.publish_directly([1])
    clone = lake.clone()
    clone.append(rows_of([2]))
    lake.publish_directly([9])
    with pytest.raises(CatalogError, match="somebody else has written"):
        lake.promote()
    assert lake.ids() == [1, 9]
    again = lake.clone()
    assert cloned_snapshot(again) == lake.table.metadata.current_snapshot_id
    again.append(rows_of([2]))
    lake.promote()
    assert lake.ids() == [1, 2, 9]


def test_two_that_promote_at_once(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.publish_directly([1])
    lake.clone().append(rows_of([2]))
    commit: Callable[..., Any] = type(lake.catalog).commit_table
    others: list[int] = []

    def after_another(self: Catalog, table: Table, *changes: Any) -> Any:
        if table.name() == lake.target and not others:
            others.append(9)
            lake.publish_directly([9])
        return commit(self, table, *changes)

    monkeypatch.setattr(type(lake.catalog), "commit_table", after_another)
    with pytest.raises(CatalogError, match="built again"):
        lake.promote()
    assert others and lake.ids() == [1, 9]


def test_the_first_time_a_table_gets_its_published_name(lake: Lake) -> None:
    rows = rows_of([1, 2])
    lake.catalog.create_table(lake.source, rows.schema).append(rows)
    result = lake.promote(layout=TableLayout(properties={"write.target-file-size-bytes": "1048576"}))
    assert result.created and result.rows == 2 and result.inserted == 2 and result.written_bytes > 0
    assert not lake.catalog.table_exists(lake.source) and lake.ids() == [1, 2]
    table = lake.table
    assert find_snapshot(table, MARK) == result.snapshot_id == table.metadata.current_snapshot_id
    assert table.properties["floe.product"] == "shop" and table.properties["write.target-file-size-bytes"]
    assert table.schema().find_field("id").doc == "Number of the order."


def test_a_run_that_changes_nothing_leaves_its_mark(lake: Lake) -> None:
    lake.publish_directly([1, 2])
    lake.clone()
    result = lake.promote()
    assert lake.ids() == [1, 2] and result.rows == 2 and result.inserted == 0
    assert find_snapshot(lake.table, MARK) == result.snapshot_id


def test_a_table_without_a_snapshot_can_be_cloned(lake: Lake) -> None:
    lake.catalog.create_table(lake.target, rows_of([]).schema)
    clone = lake.clone()
    assert cloned_snapshot(clone) is None
    clone.append(rows_of([4]))
    assert lake.promote().rows == 1 and lake.ids() == [4]


def test_only_clones_are_dropped_and_only_clones_are_promoted(lake: Lake) -> None:
    lake.publish_directly([1])
    rows = rows_of([5])
    lake.catalog.create_table(lake.source, rows.schema).append(rows)
    with pytest.raises(PublicationError, match="is no clone"):
        drop_clone(lake.catalog, lake.source)
    with pytest.raises(PublicationError, match="is no clone"):
        lake.clone()
    with pytest.raises(PublicationError, match="on_table_exists"):
        lake.promote()
    assert drop_clones(lake.catalog, lake.source[0]) == []
    assert lake.ids() == [1] and lake.ids(lake.catalog.load_table(lake.source)) == [5]
    make_clone(lake.catalog, lake.table, (lake.source[0], "other"))
    assert drop_clones(lake.catalog, lake.source[0]) == ["other"]
    assert drop_clones(lake.catalog, "nowhere") == []


def test_a_clone_that_another_run_has_made_anew_is_neither_published_nor_dropped(lake: Lake) -> None:
    lake.publish_directly([1])
    mine = clone_id(lake.clone())
    theirs = lake.clone()
    # What the tests of this run have never seen.
    theirs.append(rows_of([6]))
    with pytest.raises(CatalogError, match="another run of the product has begun meanwhile"):
        lake.promote(clone=mine)
    assert lake.ids() == [1]
    assert drop_clones(lake.catalog, lake.source[0], {str(mine)}) == []
    lake.promote(clone=clone_id(theirs))
    assert lake.ids() == [1, 6]
    assert drop_clones(lake.catalog, lake.source[0], {str(clone_id(theirs))}) == ["orders"]


def test_strict_recovery_refuses_what_somebody_else_wrote(lake: Lake) -> None:
    lake.publish_directly([1])
    lake.clone().append(rows_of([2]))
    with pytest.raises(PublicationError, match="somebody else wrote snapshot"):
        lake.promote(recovery="strict")
    assert lake.ids() == [1]


def test_a_clone_that_nobody_wrote_is_no_table_that_an_engine_has_built(lake: Lake) -> None:
    before = lake.publish_directly([1, 2, 3])
    lake.clone()
    with pytest.raises(PublicationError, match=r"has written nothing to floe_audit_.*is somewhere else"):
        lake.promote(always_written=True)
    assert lake.table.metadata == before.metadata
    # An increment may have nothing to add.
    assert lake.promote().rows == 3
