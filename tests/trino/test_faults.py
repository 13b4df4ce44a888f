"""What happens to a run when Trino loses a node, restarts, is full, or the run is cancelled."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.trino.shops import ORDERS, Shop, metadata, said

SLOW = (
    "select count(*) as n from {{ ref('raw_orders') }} as o cross join tpch.sf1.lineitem as a "
    "cross join tpch.sf1.lineitem as b where a.partkey + b.partkey = -o.id\n"
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


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """Wait until something is so, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come to it in time")


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
    cluster = make_cluster(workers=1, fault_tolerant=True)
    shop = make_shop(cluster)
    heavy = (
        "select l.suppkey % 100 as bucket, count(*) as pairs, sum(r.quantity) as quantity\n"
        "from tpch.sf1.lineitem as l inner join tpch.sf1.lineitem as r on l.orderkey = r.orderkey\n"
        "where l.orderkey < 2000000 group by 1\n"
    )
    with_model(shop, "heavy", heavy)
    outcome = in_background(lambda: shop.run())
    query = wait_for(lambda: [q for q in running(cluster, "heavy") if q["state"] == "RUNNING"])[0]
    time.sleep(3)
    cluster.stop_node("worker-1", signal.SIGKILL)
    ended = outcome()
    cluster.start_node("worker-1")
    assert ended.success, said(ended)
    query_id = metadata(ended)["heavy"]["trino/query_id"]
    assert query_id == query["queryId"]
    tasks = [
        task["taskStatus"]["taskId"]
        for stage in cluster.call(f"/v1/query/{query_id}")["stages"]["stages"]
        for task in stage["tasks"]
    ]
    assert any(int(task.rpartition(".")[2]) > 0 for task in tasks), tasks
    wanted = cluster.query(f"select count(*), sum(pairs), sum(quantity) from ({heavy})").rows[0]
    rows = shop.rows("heavy")
    assert [len(rows), sum(row["pairs"] for row in rows)] == wanted[:2]
    assert float(sum(row["quantity"] for row in rows)) == pytest.approx(float(wanted[2]))


def test_a_coordinator_that_restarts_ends_the_run_and_a_retry_does_what_is_missing(
    cluster: Any,
    make_shop: Callable[..., Shop],
) -> None:
    shop = make_shop(cluster)
    assert shop.run().success
    with_model(shop, "slow", SLOW)
    outcome = in_background(lambda: shop.run("slow"))
    wait_for(lambda: running(cluster, "cross join"))
    cluster.stop_node("coordinator", signal.SIGKILL)
    ended = outcome()
    cluster.start_node("coordinator")
    assert not ended.success
    assert re.search(r"slow|Trino at http://127\.0\.0\.1:\d+ does not answer", said(ended)), said(ended)
    (shop.product / "models" / "slow.sql").write_text("select count(*) as n from {{ ref('raw_orders') }}\n")
    again = shop.run("slow")
    assert again.success, said(again)
    assert shop.rows("slow") == [{"n": 6}] and shop.clones() == []


def test_a_limit_names_itself_and_the_model(
    make_cluster: Callable[..., Any],
    make_shop: Callable[..., Shop],
) -> None:
    cluster = make_cluster(workers=0, settings={"query.max-execution-time": "15s"})
    shop = make_shop(cluster)
    with_model(shop, "slow", SLOW)
    ended = shop.run()
    assert not ended.success
    assert re.search(
        r"- slow: dbt: error: Trino: EXCEEDED_TIME_LIMIT: .*15\.00s.*query\.max-execution-time.*query \w+",
        said(ended),
    ), said(ended)
    assert shop.catalog.table_exists(("shop", "orders"))


def test_a_full_queue_names_itself_and_may_be_tried_again(
    make_cluster: Callable[..., Any],
    make_shop: Callable[..., Shop],
) -> None:
    groups = {
        "rootGroups": [
            {"name": "etl", "softMemoryLimit": "80%", "hardConcurrencyLimit": 1, "maxQueued": 1},
            {"name": "other", "softMemoryLimit": "80%", "hardConcurrencyLimit": 50, "maxQueued": 50},
        ],
        "selectors": [{"source": "dbt-trino.*", "group": "etl"}, {"group": "other"}],
    }
    cluster = make_cluster(workers=0, resource_groups=groups)
    shop = make_shop(cluster)
    for number in range(6):
        with_model(
            shop, f"wide_{number}", SLOW.replace("a.partkey", f"{number} + a.partkey").replace("sf1", "tiny")
        )
    ended = shop.run()
    assert not ended.success and "QUERY_QUEUE_FULL" in said(ended), said(ended)


def test_a_run_that_is_interrupted_leaves_no_query_behind(
    cluster: Any,
    make_shop: Callable[..., Shop],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import dagster as dg

    from floe_dagster.definitions.dbt_build import DbtBuild

    shop = make_shop(cluster)
    (shop.product / "models" / "orders.sql").write_text(ORDERS)
    with_model(shop, "slow", SLOW)
    log = DbtBuild._log

    def interrupted(self: DbtBuild, *arguments: Any) -> Any:
        # As Dagster interrupts a step: wherever it is.
        if running(cluster, "cross join"):
            raise dg.DagsterExecutionInterruptedError
        return log(self, *arguments)

    monkeypatch.setattr(DbtBuild, "_log", interrupted)
    with pytest.raises(dg.DagsterExecutionInterruptedError):
        shop.run()
    wait_for(lambda: not running(cluster, "cross join"), 20)
    assert shop.clones() == []
