"""What happens to a run when Trino loses a node, restarts, is full or slow, or the run is cancelled."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from floe_dagster.definitions.command_runs import retry_reason
from floe_dagster.home import FloeHome
from tests.dagster_dev import DagsterDev
from tests.integration.observing import developing
from tests.jobs import execute_job, reconstructable_shop_job
from tests.locations import DEFINITIONS, bake
from tests.processes import wait_for
from tests.trino.shops import Shop, metadata, said

SLOW = (
    "select count(*) as n from {{ ref('raw_orders') }} as o cross join tpch.sf1.lineitem as a "
    "cross join tpch.sf1.lineitem as b where a.l_partkey + b.l_partkey = -o.id\n"
)


def with_model(shop: Shop, name: str, sql: str) -> None:
    (shop.product / "models" / f"{name}.sql").write_text(sql)
    spec = shop.product / "floe.yaml"
    spec.write_text(f"{spec.read_text()}  - name: {name}\n")


def running(cluster: Any, part: str) -> list[dict[str, Any]]:
    """Return the queries that run now and have a text in them."""
    return [
        query
        for query in cluster.call("/v1/query")
        if query["state"] not in ("FINISHED", "FAILED") and part in str(query.get("query"))
    ]


def tasks(cluster: Any, query_id: str) -> list[dict[str, Any]]:
    """Return the status of each task of a query, all attempts."""
    found: list[dict[str, Any]] = []
    stages = [cluster.call(f"/v1/query/{query_id}").get("outputStage")]
    while stages:
        if stage := stages.pop():
            found += [task["taskStatus"] for task in stage["tasks"]]
            stages += stage["subStages"]
    return found


def ended_with(cluster: Any, sql: str) -> str:
    """Run what will be cancelled, as dbt-trino would; return what Trino said of it."""
    try:
        cluster.query(sql, source="dbt-trino-1.11")
    except Exception as error:
        return str(error)
    return ""


def in_background(act: Callable[[], Any]) -> Callable[[], Any]:
    """Begin in a thread; what is returned waits for the result."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(act()), daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(600)
        assert results, "it did not end"
        return results[0]

    return result


def test_a_worker_that_is_killed_costs_an_attempt_and_no_row(
    make_cluster: Callable[..., Any],
    make_shop: Callable[..., Shop],
) -> None:
    # Only workers work, so that whatever runs can be killed.
    cluster = make_cluster(
        workers=2, fault_tolerant=True, settings={"node-scheduler.include-coordinator": "false"}
    )
    shop = make_shop(cluster)
    # Of Iceberg, whose files any node can read; each split of the tpch connector belongs to one node.
    cluster.query("create schema if not exists floe.facts")
    cluster.query(
        "create table floe.facts.lineitem as select l_orderkey, l_suppkey, l_quantity from tpch.sf1.lineitem "
        "where l_orderkey < 600000"
    )
    heavy = (
        "select l.l_suppkey % 100 as bucket, count(*) as pairs, sum(r.l_quantity) as quantity\n"
        "from floe.facts.lineitem as l inner join floe.facts.lineitem as r on l.l_suppkey = r.l_suppkey\n"
        "group by 1\n"
    )
    with_model(shop, "heavy", heavy)
    outcome = in_background(lambda: shop.run())
    query = wait_for("the query", lambda: running(cluster, "join floe.facts.lineitem"), 120)[0]
    victim = wait_for(
        "a task",
        lambda: [task["nodeId"] for task in tasks(cluster, query["queryId"]) if task["state"] == "RUNNING"],
        120,
    )[0]
    cluster.stop_node(victim, signal.SIGKILL)
    ended = outcome()
    cluster.start_node(victim)
    assert ended.success, said(ended)
    query_id = metadata(ended)["heavy"]["trino/query_id"]
    assert query_id == query["queryId"]
    attempts = [int(task["taskId"].rpartition(".")[2]) for task in tasks(cluster, query_id)]
    assert max(attempts) > 0
    wanted = cluster.query(f"select count(*), sum(pairs), sum(quantity) from ({heavy})").rows[0]
    cluster.query("drop table floe.facts.lineitem")
    rows = shop.rows("heavy")
    assert [len(rows), sum(row["pairs"] for row in rows)] == wanted[:2]
    assert float(sum(row["quantity"] for row in rows)) == pytest.approx(float(wanted[2]))


def test_a_coordinator_that_restarts_ends_the_run_and_a_retry_does_what_is_missing(
    cluster: Any,
    make_shop: Callable[..., Shop],
) -> None:
    shop = make_shop(cluster)
    cluster.query("create schema if not exists floe.facts")
    cluster.query("create table floe.facts.work as select 10000 as times")
    # The last of all models; what it has to do is said by a row.
    with_model(
        shop,
        "slow",
        "-- depends_on: {{ ref('daily') }} {{ ref('totals') }} {{ ref('growing') }}\n"
        "select count(*) as n from floe.facts.work as w cross join unnest(sequence(1, w.times)) as t (i) "
        "cross join tpch.tiny.lineitem as a cross join tpch.tiny.lineitem as b "
        "where a.l_orderkey + b.l_orderkey + i > 0\n",
    )
    in_process = {"execution": {"config": {"in_process": {}}}}
    job = reconstructable_shop_job(shop.product, shop.home)
    first = in_background(lambda: execute_job(job, instance=shop.instance, run_config=in_process))
    wait_for("the last model", lambda: running(cluster, "b.l_orderkey + i > 0"), 240)
    cluster.stop_node("coordinator", signal.SIGKILL)
    ended = first()
    cluster.start_node("coordinator")
    assert not ended.success
    assert re.search(r"slow|Trino at http://127\.0\.0\.1:\d+ does not answer", said(ended)), said(ended)
    others = set(metadata(ended))
    cluster.query("delete from floe.facts.work")
    options = dg.ReexecutionOptions.from_failure(ended.run_id, shop.instance)
    resumed = execute_job(job, instance=shop.instance, run_config=in_process, reexecution_options=options)
    cluster.query("drop table floe.facts.work")
    assert resumed.success, said(resumed)
    # Rows that are added to a table, as of `growing`, are copied by Trino; what is published is left alone.
    assert others == {"orders", "recent", "daily", "totals", "raw_orders"}
    assert set(metadata(resumed)) == {"slow", "growing", "recent", "raw_orders"}
    assert shop.rows("slow") == [{"n": 0}] and shop.clones() == []


@pytest.mark.core
@pytest.mark.parametrize(
    ("limit", "sql", "told"),
    [
        (
            {"query_max_execution_time": "15s"},
            SLOW,
            r"EXCEEDED_TIME_LIMIT: .*15\.00s.*query\.max-execution-time of Trino",
        ),
        (
            {"query_max_memory": "30MB"},
            "select count(*) as n from (select distinct l_orderkey, l_comment from tpch.sf1.lineitem)\n",
            r"EXCEEDED_GLOBAL_MEMORY_LIMIT: .*30MB.*query_max_memory in session_properties",
        ),
    ],
    ids=["time", "memory"],
)
def test_a_limit_names_itself_and_the_model(
    cluster: Any, make_shop: Callable[..., Shop], tmp_path: Path, limit: dict[str, str], sql: str, told: str
) -> None:
    shop = make_shop(cluster)
    path = tmp_path / "manifest.yaml"
    manifest = yaml.safe_load(path.read_text())
    manifest["plugins"]["compute"]["config"]["session_properties"] = limit
    path.write_text(yaml.safe_dump(manifest))
    with_model(shop, "heavy", sql)
    ended = shop.run()
    assert not ended.success
    assert re.search(rf"- heavy: dbt: error: Trino: {told}.* query \w+", said(ended)), said(ended)
    assert shop.catalog.table_exists(("shop", "orders"))


def test_a_full_queue_names_itself_and_is_tried_again(
    make_cluster: Callable[..., Any],
    make_shop: Callable[..., Shop],
) -> None:
    groups = {
        "rootGroups": [
            {"name": "etl", "softMemoryLimit": "80%", "hardConcurrencyLimit": 1, "maxQueued": 1},
            {"name": "other", "softMemoryLimit": "80%", "hardConcurrencyLimit": 50, "maxQueued": 50},
        ],
        # Of these Trino counts `create table as`, too.
        "selectors": [{"source": "dbt-trino.*", "queryType": "INSERT", "group": "etl"}, {"group": "other"}],
    }
    cluster = make_cluster(workers=0, resource_groups=groups)
    shop = make_shop(cluster)
    cluster.query("create schema if not exists floe.facts")
    # Somebody else's: one that runs, and one that waits for it.
    for number in range(2):
        in_background(
            lambda number=number: ended_with(
                cluster,
                f"create table floe.facts.somebody_{number} as select count(*) as n from tpch.sf1.lineitem as a "
                "cross join tpch.sf1.lineitem as b where a.l_partkey + b.l_partkey < 0",
            )
        )
    others = wait_for(
        "two queries of somebody else",
        lambda: found if len(found := running(cluster, "facts.somebody_")) == 2 else None,
        60,
    )
    ended = shop.run()
    assert not ended.success
    retried = [reason for event in ended.all_events if (reason := retry_reason(event))]
    for told in (str(retried), said(ended)):
        assert re.search(r"- raw_orders: dbt: error: Trino: QUERY_QUEUE_FULL: .*etl.* query \w+", told), told
    for query in others:
        cluster.call(f"/v1/query/{query['queryId']}", method="DELETE")
    wait_for("room in the queue", lambda: not running(cluster, "facts.somebody_"), 60)
    again = shop.run()
    assert again.success, said(again)


WORKSPACE = """\
load_from:
  - python_file: {relative_path: shop/definitions.py, location_name: shop}
"""


def test_a_run_that_is_terminated_in_dagster_leaves_no_query_and_no_clone_behind(
    cluster: Any, make_shop: Callable[..., Shop], tmp_path: Path
) -> None:
    shop = make_shop(cluster)
    first = shop.run()
    assert first.success, said(first)
    with_model(shop, "slow", SLOW)
    (shop.product / "definitions.py").write_text(DEFINITIONS)
    (tmp_path / "workspace.yaml").write_text(WORKSPACE)
    bake(shop.product, FloeHome(tmp_path / "dev" / "floe"))
    dev = DagsterDev(tmp_path, tmp_path / "dev")
    try:
        developing.loaded(dev, "shop")
        run_id = developing.launch(dev, "shop", "shop_run")
        dev.until("the query", lambda: running(cluster, "cross join"))
        assert shop.clones()
        dev.graphql(developing.TERMINATE, id=run_id)
        assert developing.ended(dev, run_id) == "CANCELED"
        assert running(cluster, "cross join") == [] and shop.clones() == []
    finally:
        dev.stop()
    assert not shop.catalog.table_exists(("shop", "slow"))
