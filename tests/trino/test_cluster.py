"""Trino, really started: its nodes, and that PyIceberg and Trino read what the other one wrote."""

from __future__ import annotations

import datetime
import decimal
import signal
import urllib.error
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from deploy.services.trino.cluster import QueryError


def test_coordinator_and_worker_are_there_and_both_work(cluster: Any) -> None:
    rows = cluster.query("select node_id, coordinator, state from system.runtime.nodes order by 1").rows
    assert rows == [["coordinator", True, "active"], ["worker-1", False, "active"]]
    answer = cluster.query("select count(*) from tpch.tiny.lineitem")
    assert answer.rows == [[60175]]
    assert answer.stats["nodes"] == 2


def test_only_the_loopback_address_is_open(cluster: Any) -> None:
    for name, port in cluster.state["ports"].items():
        addresses = _listening(port)
        assert addresses <= {"127.0.0.1"}, (name, addresses)
        assert addresses or name == "https"


def test_a_table_of_pyiceberg_is_read_and_extended_by_trino(
    cluster: Any, catalog: Catalog, namespace: str
) -> None:
    rows = pa.table(
        {
            "id": pa.array([1, 2], pa.int64()),
            "name": ["a", None],
            "price": pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.25")], pa.decimal128(12, 2)),
            "day": [datetime.date(2024, 2, 29), None],
            "at": pa.array([datetime.datetime(2024, 2, 29, 12, 0, 0, 123456)] * 2, pa.timestamp("us")),
        }
    )
    catalog.create_namespace(namespace)
    catalog.create_table((namespace, "made"), schema=rows.schema).append(rows)
    read = cluster.query(f"select * from floe.{namespace}.made order by id")
    assert read.types == ["bigint", "varchar", "decimal(12, 2)", "date", "timestamp(6)"]
    assert read.rows == [
        [1, "a", "1.50", "2024-02-29", "2024-02-29 12:00:00.123456"],
        [2, None, "2.25", None, "2024-02-29 12:00:00.123456"],
    ]
    added = cluster.query(f"insert into floe.{namespace}.made (id, name) values (3, 'c')")
    assert added.update_count == 1
    found = catalog.load_table((namespace, "made")).scan().to_arrow().sort_by("id")
    assert found.column("id").to_pylist() == [1, 2, 3]
    assert found.column("name").to_pylist() == ["a", None, "c"]


def test_a_table_of_trino_is_read_and_extended_by_pyiceberg(
    cluster: Any, catalog: Catalog, namespace: str
) -> None:
    cluster.query(f"create schema floe.{namespace}")
    cluster.query(
        f"create table floe.{namespace}.made with (partitioning = array['n_regionkey']) as "
        "select n_nationkey, n_name, n_regionkey from tpch.tiny.nation"
    )
    table = catalog.load_table((namespace, "made"))
    assert [field.name for field in table.spec().fields] == ["n_regionkey"]
    assert table.scan(row_filter="n_regionkey = 3").to_arrow().num_rows == 5
    table.append(
        pa.table(
            {"n_nationkey": pa.array([25], pa.int64()), "n_name": ["ATLANTIS"], "n_regionkey": pa.array([9])}
        )
    )
    count = f"select count(*), max_by(n_name, n_nationkey) from floe.{namespace}.made"
    assert cluster.query(count).rows == [[26, "ATLANTIS"]]


def test_a_statement_that_fails_says_why(cluster: Any) -> None:
    with pytest.raises(QueryError, match="SCHEMA_NOT_FOUND") as caught:
        cluster.query("select * from floe.nowhere.nothing")
    assert caught.value.name == "SCHEMA_NOT_FOUND"
    assert caught.value.query_id


def test_no_secret_lies_in_a_file_but_the_one_for_them(cluster: Any, services: Any) -> None:
    secrets = [*cluster.environment.values(), *services.environment.values()]
    kept = [path for path in cluster.folder.rglob("*") if path.is_file() and path.suffix != ".jar"]
    assert len(kept) > 10
    for path in kept:
        if path == cluster.folder / "environment":
            assert path.stat().st_mode & 0o077 == 0
            continue
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content], path


def test_a_worker_that_is_killed_leaves_the_list_and_comes_back(cluster: Any) -> None:
    cluster.stop_node("worker-1", signal.SIGKILL)
    cluster.wait(nodes=1)
    assert cluster.nodes() == ["coordinator"]
    cluster.start_node("worker-1")
    assert cluster.nodes() == ["coordinator", "worker-1"]


def test_a_password_over_tls_is_asked_for(
    make_cluster: Callable[..., Any], catalog: Catalog, namespace: str
) -> None:
    cluster = make_cluster(workers=0, password=True, fault_tolerant=True)
    assert cluster.url.startswith("https://")
    cluster.query(f"create schema floe.{namespace}")
    cluster.query(f"create table floe.{namespace}.made as select * from tpch.tiny.region")
    assert catalog.load_table((namespace, "made")).scan().to_arrow().num_rows == 5
    query_id = cluster.query(f"select count(*) from floe.{namespace}.made").query_id
    assert cluster.call(f"/v1/query/{query_id}")["retryPolicy"] == "TASK"
    (cluster.folder / "environment").write_text(
        (cluster.folder / "environment").read_text().replace("TRINO_PASSWORD=", "TRINO_PASSWORD=not-")
    )
    with pytest.raises(urllib.error.HTTPError, match="401"):
        cluster.call("/v1/statement", b"select 1")


def _listening(port: int) -> set[str]:
    """Return the addresses on which a port is open, as the kernel says."""
    found = set()
    for name in ("tcp", "tcp6"):
        with open(f"/proc/net/{name}") as lines:
            for line in list(lines)[1:]:
                local, state = line.split()[1], line.split()[3]
                address, _, number = local.partition(":")
                if state == "0A" and int(number, 16) == port:
                    found.add("127.0.0.1" if address.endswith("0100007F") else address)
    return found
