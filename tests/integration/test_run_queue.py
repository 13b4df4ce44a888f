"""Dagster's own queue on our tags and settings: who is let go, in which order, with 50 products."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pytest
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.execution.api import create_execution_plan
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.run_coordinator.base import SubmitRunContext
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from floe_dagster.definitions.queue.coordinator import FairRunCoordinator
from floe_dagster.definitions.queue.tags import (
    CATALOG_TAG,
    PRODUCT_TAG,
    TURN_TAG,
    catalog_tags,
    engine_tag,
    run_tags,
)
from floe_dagster.schemas.artifacts import PluginRef, ResolvedPlugins
from floe_dagster.schemas.compute import ENGINES
from tests.conftest import ROOT
from tests.many_products import limits

PRIORITY = "dagster/priority"
DUCKDB, TRINO = engine_tag("duckdb"), engine_tag("trino")
_CODE = RepositoryPythonOrigin(sys.executable, ModuleCodePointer("nobody.loads.it", "defs"))
BUILT_IN = {"module": "dagster._core.run_coordinator", "class": "QueuedRunCoordinator"}


class Queue:
    """An instance whose queue is looked at by Dagster's daemon, and whose runs end when the test says so."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self._daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
        self._jobs: dict[str, dg.JobDefinition] = {}
        self.most: dict[str, int] = {}

    def put(
        self,
        product: str,
        catalog: str = "a",
        parent: dg.DagsterRun | None = None,
        engines: Sequence[str] = ("duckdb",),
        **tags: str,
    ) -> str:
        """Put a run of a product into the queue and return its id."""
        job = self._jobs.setdefault(product, _job(product, catalog, engines))
        chosen = {f"dagster/{name}": value for name, value in tags.items()}
        repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("many"), "__repository__")
        run = self.instance.create_run_for_job(
            job,
            execution_plan=create_execution_plan(job),
            tags={**job.tags, **(parent.tags if parent else {}), **chosen},
            remote_job_origin=RemoteJobOrigin(repository, job.name),
            job_code_origin=JobPythonOrigin(job.name, _CODE),
        )
        assert run.run_op_concurrency is not None
        # The workspace matters to runs without a job's tags; tests/integration/test_many_products.py has them.
        self.instance.run_coordinator.submit_run(SubmitRunContext(run, cast(Any, None)))
        return run.run_id

    def run(self, run_id: str) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run_id)
        assert found is not None
        return found

    def look(self) -> list[str]:
        """Let go what the daemon would launch now, and return the ids."""
        config = self.instance.get_concurrency_config()
        let_go = self._daemon._get_runs_to_dequeue(self.instance, config, None)
        for run in let_go:
            self.instance.report_dagster_event(_event("PIPELINE_START", run), run_id=run.run_id)
        going = self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        for key in (PRODUCT_TAG, DUCKDB, CATALOG_TAG):
            now = max(Counter(run.tags[key] for run in going if key in run.tags).values(), default=0)
            self.most[key] = max(self.most.get(key, 0), now)
        return [run.run_id for run in let_go]

    def end(self, run_id: str) -> None:
        self.instance.report_dagster_event(_event("PIPELINE_SUCCESS", self.run(run_id)), run_id=run_id)

    def drain(self) -> list[str]:
        """Let all runs go and end, the one that is going for longest first, and return the ids in the order of their begins."""
        order, going = [], []
        while found := self.look() or going:
            order += [one for one in found if one not in order]
            going += [one for one in found if one not in going]
            self.end(going.pop(0))
        return order


def _event(name: str, run: dg.DagsterRun) -> dg.DagsterEvent:
    return dg.DagsterEvent(event_type_value=name, job_name=run.job_name, message="")


def _job(product: str, catalog: str, engines: Sequence[str]) -> dg.JobDefinition:
    plugins = ResolvedPlugins(
        compute=PluginRef(type="duckdb"),
        orchestrator=PluginRef(type="dagster"),
        catalog=PluginRef(type="polaris", config={"warehouse": catalog}),
    )

    @dg.op(name=f"{product}_dbt", pool=f"{product}_writer")
    def write() -> None: ...

    @dg.job(name=f"{product}_run", tags=run_tags(product, plugins, engines))
    def job() -> None:
        write()

    return job


@contextmanager
def queue(
    folder: Path, tag_limits: list[dict[str, Any]], coordinator: Mapping[str, str] | None = None
) -> Iterator[Queue]:
    settings = yaml.safe_load((ROOT / "deploy" / "local" / "dagster.yaml").read_text())
    overrides: dict[str, Any] = {key: settings[key] for key in ("run_coordinator", "concurrency")}
    # As there: one SQLite file in place of one for each run.
    overrides["event_log_storage"] = {**settings["event_log_storage"], "config": {"base_dir": str(folder)}}
    overrides["concurrency"]["runs"] = {"max_concurrent_runs": -1, "tag_concurrency_limits": tag_limits}
    if coordinator is not None:
        overrides["run_coordinator"] = dict(coordinator)
    with dg.instance_for_test(overrides=overrides) as instance:
        yield Queue(instance)


@pytest.mark.slow
def test_fifty_products_and_ten_runs_more_of_one(tmp_path: Path) -> None:
    with queue(tmp_path, limits(engine=3, catalog=2)) as queued:
        assert isinstance(queued.instance.run_coordinator, FairRunCoordinator)
        many = [queued.put("product_00") for _time in range(11)]
        singles = [queued.put(f"product_{number:02}", "aaab"[number % 4]) for number in range(1, 50)]
        order = queued.drain()
        assert sorted(order) == sorted(many + singles)
        assert queued.most == {PRODUCT_TAG: 1, DUCKDB: 3, CATALOG_TAG: 2}
        assert not queued.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
        # The one's second run comes after the first ones of all others, its own in their order.
        assert set(order[:50]) == {many[0], *singles}
        assert order[50:] == many[1:]


@pytest.mark.parametrize(("coordinator", "begins"), [(None, "next"), (BUILT_IN, "last")])
def test_as_many_backfills_as_the_engine_takes_hold_nobody_up(
    tmp_path: Path, coordinator: Mapping[str, str] | None, begins: str
) -> None:
    # The second line is why the queue is not Dagster's as it is.
    with queue(tmp_path, limits(engine=4, catalog=9), coordinator) as queued:
        backfills = [queued.put(name) for name in ("one", "two", "three", "four") for _time in range(6)]
        going = queued.look()
        assert len(going) == 4
        single = queued.put("single")
        for run_id in going:
            queued.end(run_id)
        order = queued.drain()
        assert sorted([*going, *order]) == sorted([*backfills, single])
        assert order.index(single) == {"next": 0, "last": len(order) - 1}[begins]


def test_a_product_on_two_engines_takes_a_place_of_each(tmp_path: Path) -> None:
    each = [{"key": key, "limit": 1} for key in (DUCKDB, TRINO)]
    with queue(tmp_path, each) as queued:
        both = queued.put("both", engines=("duckdb", "trino"))
        singles = [queued.put("small"), queued.put("large", engines=("trino",))]
        assert queued.look() == [both]
        assert queued.look() == []
        queued.end(both)
        assert sorted(queued.look()) == sorted(singles)


def test_turns_count_what_is_open_and_leave_what_a_person_chose(tmp_path: Path) -> None:
    with queue(tmp_path, limits(engine=4, catalog=4)) as queued:
        first, second, third = (queued.put("shop") for _time in range(3))
        assert [queued.run(one).tags.get(PRIORITY) for one in (first, second, third)] == [None, "-1", "-2"]
        urgent = queued.run(queued.put("shop", priority="7"))
        assert urgent.tags[PRIORITY] == "7" and TURN_TAG not in urgent.tags
        assert queued.look() == [urgent.run_id]
        queued.end(urgent.run_id)
        for one in (first, second, third):
            assert queued.look() == [one]
            queued.end(one)
        # Executed again, it comes with the tags of the run before; nothing of the product is open.
        again = queued.run(queued.put("shop", parent=queued.run(third)))
        assert (again.tags[PRIORITY], again.tags[TURN_TAG]) == ("0", "0")
        urgently = queued.run(queued.put("shop", parent=queued.run(third), priority="3"))
        assert urgently.tags[PRIORITY] == "3"


@pytest.mark.parametrize(("product", "is_let_go"), [(1, True), (9, False)])
def test_what_a_pool_keeps_out_takes_at_most_one_place_of_the_engine(
    tmp_path: Path, product: int, is_let_go: bool
) -> None:
    # Dagster counts tags before it asks the pool. Without a limit of the product its runs would fill the engine's places.
    with queue(tmp_path, limits(engine=2, catalog=9, product=product), BUILT_IN) as queued:
        storage = queued.instance.event_log_storage
        storage.set_concurrency_slots("shop_writer", 1)
        killed = queued.put("shop")
        assert queued.look() == [killed]
        assert storage.claim_concurrency_slot("shop_writer", killed, "shop_dbt").is_claimed
        queued.end(killed)
        for _time in range(3):
            queued.put("shop")
        other = queued.put("other")
        assert queued.look() == ([other] if is_let_go else [])


def chart() -> dict[str, Any]:
    values = yaml.safe_load((ROOT / "deploy" / "floe-platform" / "values.yaml").read_text())["dagster"]
    return {
        "run_coordinator": values["dagsterDaemon"]["runCoordinator"]["config"]["customRunCoordinator"],
        "concurrency": values["additionalInstanceConfig"]["concurrency"],
    }


def local() -> dict[str, Any]:
    settings = yaml.safe_load((ROOT / "deploy" / "local" / "dagster.yaml").read_text())
    return {key: settings[key] for key in ("run_coordinator", "concurrency")}


@pytest.mark.parametrize("settings", [chart, local])
def test_the_settings_that_ship_limit_what_the_runs_bear(settings: Callable[[], dict[str, Any]]) -> None:
    with dg.instance_for_test(overrides=settings()) as instance:
        assert isinstance(instance.run_coordinator, FairRunCoordinator)
        found = instance.get_concurrency_config()
        assert found.pool_config.default_pool_limit == 1
        assert found.run_queue_config is not None
        limited = {
            (limit["key"], str(limit.get("value"))) for limit in found.run_queue_config.tag_concurrency_limits
        }
        each = str({"applyLimitPerUniqueValue": True})
        engines = {(engine_tag(name), "None") for name in ENGINES}
        assert limited == {(PRODUCT_TAG, each), (CATALOG_TAG, each)} | engines


@pytest.mark.parametrize(
    ("catalog", "name"),
    [
        (None, "sql"),
        (PluginRef(type="sql"), "sql"),
        (PluginRef(type="sql", config={"uri": "postgresql://user:${PASSWORD}@host/db"}), "sql"),
        (PluginRef(type="sql", config={"warehouse": "s3://bucket/warehouse"}), "s3://bucket/warehouse"),
        (PluginRef(type="polaris", config={"warehouse": "production", "uri": "https://a"}), "production"),
    ],
)
def test_a_catalog_is_known_by_its_warehouse(catalog: PluginRef | None, name: str) -> None:
    plugins = ResolvedPlugins(
        compute=PluginRef(type="duckdb"), orchestrator=PluginRef(type="dagster"), catalog=catalog
    )
    assert catalog_tags(plugins) == {CATALOG_TAG: name}
    assert run_tags("shop", plugins, ["duckdb", "trino"]) == {
        PRODUCT_TAG: "shop",
        DUCKDB: "true",
        TRINO: "true",
        CATALOG_TAG: name,
    }
