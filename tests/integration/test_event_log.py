"""The event log that `deploy/local/dagster.yaml` names."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage

from floe_dagster.definitions.event_log import PooledSqliteEventLogStorage
from tests.conftest import ROOT


@pytest.fixture
def dagster_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "deploy" / "local" / "dagster.yaml", tmp_path / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return tmp_path


def report(number: int) -> None:
    with dg.DagsterInstance.get() as instance:
        for position in range(20):
            instance.report_runless_asset_event(
                dg.AssetMaterialization(asset_key=f"a{number}", metadata={"position": position})
            )


def materializations(storage: ConsolidatedSqliteEventLogStorage, key: str) -> int:
    return len(storage.fetch_materializations(dg.AssetKey(key), limit=100).records)


def test_events_are_those_of_the_stock_class(dagster_home: Path) -> None:
    report(0)
    stock = ConsolidatedSqliteEventLogStorage(str(dagster_home))
    assert materializations(stock, "a0") == 20
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.event_log_storage, PooledSqliteEventLogStorage)
        assert materializations(instance.event_log_storage, "a0") == 20


@pytest.mark.slow
def test_several_processes_write_at_once(dagster_home: Path) -> None:
    # The first process of a new instance makes the tables; two at once would both try.
    report(9)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=report, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    stock = ConsolidatedSqliteEventLogStorage(str(dagster_home))
    assert [materializations(stock, f"a{number}") for number in range(3)] == [20, 20, 20]
