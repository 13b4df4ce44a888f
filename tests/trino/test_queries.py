"""What queries took, as a real Trino says it, and after it has forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from floe_dagster.engines.trino.access import TrinoAccess
from floe_dagster.engines.trino.queries import TrinoQueries
from tests.trino.shops import reached

TAG = "floe-run=costs"


def test_costs_outlast_the_memory_of_trino(services: Any, make_cluster: Callable[..., Any]) -> None:
    forgetful = {"query.max-history": "1", "query.min-expire-age": "1s"}
    cluster = make_cluster(workers=0, settings=forgetful)
    access = TrinoAccess(reached(cluster, "tpch"))
    queries = TrinoQueries(access, TAG)
    with queries.remembered(every_seconds=0.2), access.connect(client_tags=[TAG]) as connection:
        cursor = connection.cursor()
        cursor.execute("select count(*), sum(l_quantity) from tpch.tiny.lineitem")
        assert cursor.fetchall()[0][0] == 60175
        query_id = cursor.query_id
        while TrinoQueries(access, TAG).cost(query_id) is not None:
            cluster.query("select 1")
    cost = queries.cost(query_id)
    assert cost is not None and cost.query_id == query_id
    assert cost.splits > 0 and cost.peak_memory_bytes > 0
    assert cost.cpu_seconds > 0 and cost.elapsed_seconds > 0


def test_trino_that_is_away_says_no_costs() -> None:
    queries = TrinoQueries(
        TrinoAccess({"host": "127.0.0.1", "port": 1, "catalog": "tpch", "retries": 1}), TAG
    )
    queries.remember()
    assert queries.cost("20260101_000000_00000_abcde") is None
    assert queries.cancel() == []
