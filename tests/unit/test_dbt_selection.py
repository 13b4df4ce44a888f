"""The choice of nodes by dbt's unique id, held against dbt's own reader of it."""

from __future__ import annotations

from pathlib import Path

from dbt.contracts.state import PreviousState

from floe_dagster.execution.dbt_selection import STATUS, select_exactly

NODES = {
    "model.shop.orders",
    "seed.shop.größe",
    "snapshot.shop.orders",
    "test.shop.unique_orders_id.1a2b",
    "unit_test.shop.orders.one",
    "function.shop.area",
}


def test_dbt_reads_the_nodes_as_results_of_an_earlier_invocation(tmp_path: Path) -> None:
    arguments = select_exactly(NODES, tmp_path / "planned")
    assert arguments == [
        "--indirect-selection",
        "empty",
        "--select",
        f"result:{STATUS}",
        "--state",
        str(tmp_path / "planned"),
    ]
    state = PreviousState(tmp_path / "planned", tmp_path / "target", tmp_path)
    assert state.results is not None
    assert {result.unique_id for result in state.results if result.status == STATUS} == NODES


def test_nothing_is_kept_of_the_choice_before(tmp_path: Path) -> None:
    select_exactly(NODES, tmp_path)
    select_exactly(["model.shop.orders"], tmp_path)
    state = PreviousState(tmp_path, tmp_path / "target", tmp_path)
    assert state.results is not None and [each.unique_id for each in state.results] == ["model.shop.orders"]
