"""Publication over a real REST catalog to real MinIO."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from floe_dagster.home import FloeHome
from floe_dagster.iceberg.commit import find_snapshot
from floe_dagster.iceberg.errors import NotUsableError, PublicationError
from floe_dagster.iceberg.layout import TableLayout
from tests.services.conftest import Services, Shop


def test_a_table_is_made_replaced_and_read_back(shop_table: Shop) -> None:
    first = shop_table.publish("select range as id, 'n' || range as name from range(1000)")
    assert first.created and first.rows == 1000 and first.location.startswith("s3://")
    second = shop_table.publish("select range as id, 'm' || range as name from range(10)")
    assert not second.created and second.rows == 10
    assert shop_table.rows() == [(i, f"m{i}") for i in range(10)]


def test_files_that_are_sent_while_they_are_written_arrive_whole(shop_table: Shop) -> None:
    rows = 8_000_000
    result = shop_table.publish(f"select range as id, (hash(range) >> 1)::bigint as n from range({rows})")
    # More than one file, and each in several parts.
    assert result.rows == rows and result.files >= 2
    table = shop_table.direct.load_table((shop_table.namespace, "t"))
    with duckdb.connect() as con:
        con.register("read", table.scan().to_arrow())
        summed = con.sql("select count(*), sum(id), bit_xor(hash(id, n)) from read").fetchall()
        wanted = con.sql(
            "select count(*), sum(id), bit_xor(hash(id, n)) from "
            f"(select range as id, (hash(range) >> 1)::bigint as n from range({rows}))"
        ).fetchall()
    assert summed == wanted


def test_append_and_upsert_change_only_what_they_say(shop_table: Shop) -> None:
    shop_table.publish("select range as id, 'a' as v from range(5)")
    shop_table.publish("select range as id, 'b' as v from range(5, 7)", mode="append")
    result = shop_table.publish("select range as id, 'c' as v from range(6, 9)", mode="upsert", key=("id",))
    assert (result.inserted, result.deleted) == (3, 1)
    expected = [(i, "a") for i in range(5)] + [(5, "b")] + [(i, "c") for i in range(6, 9)]
    assert shop_table.rows() == expected
    again = shop_table.publish("select range as id, 'c' as v from range(6, 9)", mode="upsert", key=("id",))
    assert (again.inserted, again.deleted, again.written_bytes) == (0, 0, 0)


def test_an_upsert_with_a_new_column_evolves_in_the_same_snapshot(shop_table: Shop) -> None:
    shop_table.publish("select range as id, 'a' as v from range(3)")
    result = shop_table.publish("select 1::bigint as id, 'b' as v, 7 as extra", mode="upsert", key=("id",))
    assert result.evolved == ("added extra int",)
    assert shop_table.rows() == [(0, "a", None), (1, "b", 7), (2, "a", None)]
    assert shop_table.snapshots() == 2


def test_partitions_and_sort_order_on_object_storage(shop_table: Shop) -> None:
    layout = TableLayout.parse(["month(at)", "bucket(2, id)"], ["id desc"])
    shop_table.publish(
        "select range as id, timestamptz '2024-01-01 00:00:00+00' + interval (range) day as at from range(90)",
        layout=layout,
    )
    table = shop_table.direct.load_table((shop_table.namespace, "t"))
    assert [f.name for f in table.spec().fields] == ["at_month", "id_bucket"]
    march = table.scan(row_filter="at >= '2024-03-01T00:00:00+00:00'")
    assert 1 <= len(list(march.plan_files())) <= 2
    assert march.to_arrow().num_rows == 30
    ids = table.scan().to_arrow().column("id").to_pylist()
    assert sorted(ids) == list(range(90))


def test_two_that_append_at_once_lose_nothing(through: Callable[..., Shop]) -> None:
    shops = [through() for _ in range(4)]
    shops[0].publish("select -1::bigint as id")
    failures: list[BaseException] = []

    def append(number: int) -> None:
        try:
            for step in range(3):
                shops[number].publish(f"select {number * 10 + step}::bigint as id", mode="append")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=append, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert shops[0].rows() == sorted([(-1,), *((n * 10 + s,) for n in range(4) for s in range(3))])


def test_a_run_outlives_its_token(
    tools: Path, tmp_path: Path, home: FloeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = Services(tmp_path / "services", token_seconds=2)
    try:
        for name, value in services.environment.items():
            monkeypatch.setenv(name, value)
        shop = Shop(services, "long", home)
        for number in range(4):
            shop.publish(f"select {number}::bigint as id", mode="append")
            time.sleep(1.2)
        assert shop.rows() == [(n,) for n in range(4)]
        assert shop.catalog._auth_manager.refreshes >= 2  # type: ignore[attr-defined]
    finally:
        services.stop()


def test_a_wrong_secret_and_an_unset_one_are_told_apart(
    services: Services, home: FloeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLARIS_CLIENT_SECRET", "wrong-secret-value")
    with pytest.raises(NotUsableError) as refused:
        Shop(services, "x", home)
    assert "oauth2" in str(refused.value) and "wrong-secret-value" not in str(refused.value)
    monkeypatch.delenv("POLARIS_CLIENT_SECRET")
    with pytest.raises(NotUsableError, match="POLARIS_CLIENT_SECRET, which is not set"):
        Shop(services, "x", home)


def test_vending_that_the_server_does_not_offer_is_explained_and_leaves_no_table(
    services: Services, home: FloeHome
) -> None:
    plugins = services.plugins()
    assert plugins["catalog"].config is not None
    plugins["catalog"].config["credential_vending"] = True
    from floe_dagster.platform.check import check_platform

    checks = check_platform(**plugins, home=home, namespaces=("vending",))
    broken = {check.name for check in checks if not check.passed}
    assert broken == {"storage"}
    assert services.objects("vending/") == set()


def test_a_schema_policy_refuses_and_the_snapshot_stands(shop_table: Shop) -> None:
    shop_table.publish("select 1 as a, 2 as b")
    with pytest.raises(PublicationError, match="additive"):
        shop_table.publish("select 1 as a", schema_evolution="additive")
    with pytest.raises(PublicationError, match="refuse"):
        shop_table.publish("select 1 as a, 2 as b, 3 as c", schema_evolution="refuse")
    shop_table.publish("select 1 as a, 2 as b, 3 as c", schema_evolution="additive")
    assert shop_table.rows() == [(1, 2, 3)]


def test_a_retry_finds_what_an_earlier_attempt_committed(shop_table: Shop) -> None:
    result = shop_table.publish("select 1 as a", mark="run-1")
    table = shop_table.direct.load_table((shop_table.namespace, "t"))
    assert find_snapshot(table, {"floe.run-group": "run-1"}) == result.snapshot_id
    assert find_snapshot(table, {"floe.run-group": "run-2"}) is None
