"""What breaks in the middle: afterwards every row is where it belongs, and what is left over can be found."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from deploy.services import control
from deploy.services.programs import free_port
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.commit import PUBLICATION_ID
from floe_dagster.iceberg.errors import CatalogError, NotUsableError, PublicationError
from floe_dagster.iceberg.files import comparable, reachable_files
from floe_dagster.iceberg.layout import TableLayout
from floe_dagster.iceberg.maintenance import Rules, TableMaintenance
from tests.services.conftest import Services, Shop
from tests.services.proxy import FaultProxy, commits

BEFORE = "select range as id, 'old' as v from range(100)"
AFTER = "select range as id, 'new' as v from range(50)"
OLD, NEW = [(i, "old") for i in range(100)], [(i, "new") for i in range(50)]


def orphans(shop: Shop, table: str = "t") -> set[str]:
    """Return the objects at the table's place that no snapshot needs."""
    loaded = shop.direct.load_table((shop.namespace, table))
    needed = reachable_files(loaded.metadata, loaded.metadata_location, loaded.io)
    prefix = comparable(loaded.location()).partition("/warehouse/")[2] + "/"
    listed = {f"s3://{control.BUCKET}/{name}" for name in shop.services.objects(prefix)}
    assert needed.keys() <= listed, "a file that a snapshot needs is missing"
    return listed - needed.keys()


def assert_maintenance_finds(shop: Shop, left: set[str]) -> None:
    """Maintenance removes exactly what is left over, and the rows stay."""
    before = shop.rows()
    later = datetime.now(UTC) + timedelta(days=4)
    report = TableMaintenance(shop.direct, shop.namespace, "t", Rules(), now=later).run()
    assert report.orphans_removed == len(left) and report.not_removed == 0
    assert orphans(shop) == set() and shop.rows() == before


# The catalog


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_an_error_in_place_of_the_commit(
    status: int, through: Callable[..., Shop], proxy: FaultProxy
) -> None:
    shop = through(catalog_url=proxy.url)
    shop.publish(BEFORE)
    proxy.rule(applies=commits(), status=status, headers={"Retry-After": "0"}, times=2)
    result = shop.publish(AFTER)
    assert shop.rows() == NEW and shop.snapshots() == 2
    assert result.attempts == (1 if status == 429 else 3)
    assert_maintenance_finds(shop, orphans(shop))


@pytest.mark.parametrize("mode", ["overwrite", "append", "upsert"])
@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_connection_that_is_cut_around_the_commit(
    mode: str, cut: str, through: Callable[..., Shop], proxy: FaultProxy
) -> None:
    shop = through(catalog_url=proxy.url)
    shop.publish(BEFORE)
    proxy.rule(applies=commits(), cut=cut)
    shop.publish(AFTER, mode=mode, key=("id",))
    expected = {
        "overwrite": NEW,
        "append": sorted(OLD + NEW),
        "upsert": NEW + OLD[50:],
    }[mode]
    assert shop.rows() == expected
    assert shop.snapshots() == 2, "the commit that was answered by silence must not be repeated"
    assert_maintenance_finds(shop, orphans(shop))


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_connection_that_is_cut_while_a_table_is_made(
    cut: str, through: Callable[..., Shop], proxy: FaultProxy
) -> None:
    shop = through(catalog_url=proxy.url)
    proxy.rule(applies=commits(), cut=cut)
    shop.publish(AFTER)
    assert shop.rows() == NEW and shop.snapshots() == 1


def test_errors_that_do_not_end_are_named_and_the_table_stands(
    through: Callable[..., Shop], proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("floe_dagster.iceberg.commit.LONGEST_PAUSE_SECONDS", 0.1)
    shop = through(catalog_url=proxy.url)
    shop.publish(BEFORE)
    proxy.rule(applies=commits(), status=500, times=1000)
    with pytest.raises(CatalogError, match=r"did not say whether it took the commit"):
        shop.publish(AFTER)
    assert shop.rows() == OLD
    proxy.rules.clear()
    left = orphans(shop)
    assert left, "files of a commit that might have landed are kept"
    shop.publish(AFTER)
    assert shop.rows() == NEW
    assert_maintenance_finds(shop, orphans(shop))


def test_the_catalog_is_killed_between_upload_and_commit(
    services: Services, through: Callable[..., Shop], proxy: FaultProxy
) -> None:
    shop = through(catalog_url=proxy.url)
    shop.publish(BEFORE)
    restarted: list[threading.Timer] = []

    def kill() -> None:
        services.kill("catalog")
        restarted.append(services.restart_later("catalog", 2.0))

    proxy.rule(applies=commits(), before=kill)
    shop.publish(AFTER)
    restarted[0].join()
    assert shop.rows() == NEW and shop.snapshots() == 2


def test_a_catalog_that_stays_away_is_named(services: Services, shop_table: Shop) -> None:
    shop_table.publish(BEFORE)
    services.kill("catalog")
    with pytest.raises(
        CatalogError, match=r"catalog at http://127.0.0.1:\d+\S* does not answer: nothing listens there"
    ):
        shop_table.publish(AFTER)
    services.start("catalog")
    assert shop_table.rows() == OLD
    shop_table.publish(AFTER)
    assert shop_table.rows() == NEW


def test_a_concurrent_writer_comes_between_plan_and_commit(
    services: Services, through: Callable[..., Shop], proxy: FaultProxy
) -> None:
    shop, other = through(catalog_url=proxy.url), through()
    shop.publish(BEFORE)
    proxy.rule(
        applies=commits(),
        before=lambda: other.publish("select -1::bigint as id, 'theirs' as v", mode="append"),
    )
    result = shop.publish("select 7::bigint as id, 'ours' as v", mode="append")
    assert result.attempts == 2
    assert shop.rows() == sorted([*OLD, (-1, "theirs"), (7, "ours")])
    proxy.rule(
        applies=commits(),
        before=lambda: other.publish("select -2::bigint as id, 'theirs' as v", mode="append"),
    )
    shop.publish(AFTER)
    # An overwrite makes the table equal to the model, whoever wrote before its commit.
    assert shop.rows() == NEW
    assert_maintenance_finds(shop, orphans(shop))


# The storage


def test_minio_is_killed_during_an_upload_and_comes_back(services: Services, shop_table: Shop) -> None:
    shop_table.publish("select range as id, md5(range::varchar) as v from range(10)")
    killed = threading.Timer(0.7, services.kill, ("minio",))
    back = threading.Timer(2.5, services.start, ("minio",))
    killed.start()
    back.start()
    shop_table.publish("select range as id, md5(range::varchar) as v from range(6000000)")
    back.join()
    killed.join()
    table = shop_table.direct.load_table((shop_table.namespace, "t"))
    read = table.scan(selected_fields=("id",)).to_arrow().column("id")
    assert len(read) == 6_000_000 and len(set(read.to_numpy())) == 6_000_000
    assert_only_orphans_are_left(shop_table)


def assert_only_orphans_are_left(shop: Shop) -> None:
    left = orphans(shop)
    later = datetime.now(UTC) + timedelta(days=4)
    report = TableMaintenance(shop.direct, shop.namespace, "t", Rules(), now=later).run()
    assert report.orphans_removed == len(left) and orphans(shop) == set()


def test_minio_that_stays_away_is_named_and_the_table_stands(
    services: Services, shop_table: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("floe_dagster.iceberg.staging.UPLOAD_ATTEMPTS", 2)
    shop_table.publish(BEFORE)
    services.kill("minio")
    with pytest.raises(CatalogError) as failed:
        shop_table.publish(AFTER)
    services.start("minio")
    assert "could not be written" in str(failed.value)
    assert shop_table.rows() == OLD
    shop_table.publish(AFTER)
    assert shop_table.rows() == NEW


def test_the_storage_answers_with_errors_for_a_while(
    through: Callable[..., Shop], storage_proxy: FaultProxy
) -> None:
    shop = through(storage_url=storage_proxy.url)
    storage_proxy.rule(applies=lambda method, path: method in ("PUT", "POST"), status=503, times=3)
    shop.publish(AFTER)
    assert shop.rows() == NEW


def test_a_bucket_emptied_behind_the_catalogs_back(services: Services, shop_table: Shop) -> None:
    shop_table.publish(BEFORE)
    shop_table.publish("select range as id, 'x' as v from range(3)")
    store = services.store()
    for name in services.objects(f"{shop_table.namespace}/t/data/"):
        store.remove_object(control.BUCKET, name)
    with pytest.raises(CatalogError, match=r"does not exist.*data/"):
        shop_table.publish(AFTER, mode="upsert", key=("id",))
    # What holds all rows repairs it.
    shop_table.publish(AFTER)
    assert shop_table.rows() == NEW


def test_metadata_that_is_gone_is_named_and_repaired_where_governance_says_so(
    services: Services, shop_table: Shop
) -> None:
    shop_table.publish(BEFORE)
    store = services.store()
    for name in services.objects(f"{shop_table.namespace}/t/"):
        store.remove_object(control.BUCKET, name)
    with pytest.raises(PublicationError, match=r"(?s)files.*stale_table_recovery_mode"):
        shop_table.publish(AFTER, recovery="strict")
    with pytest.raises(PublicationError, match="files are gone"):
        # Rows that only the table had: nobody may forget them by accident.
        shop_table.publish(AFTER, mode="append")
    shop_table.publish(AFTER)
    assert shop_table.rows() == NEW


# The table


def test_a_table_dropped_by_somebody_else_is_made_again(shop_table: Shop) -> None:
    shop_table.publish(BEFORE)
    shop_table.direct.drop_table((shop_table.namespace, "t"))
    result = shop_table.publish(AFTER)
    assert result.created and shop_table.rows() == NEW


def test_a_table_dropped_between_plan_and_commit(through: Callable[..., Shop], proxy: FaultProxy) -> None:
    shop, other = through(catalog_url=proxy.url), through()
    shop.publish(BEFORE)
    proxy.rule(applies=commits(), before=lambda: other.direct.drop_table((shop.namespace, "t")))
    shop.publish(AFTER)
    assert shop.rows() == NEW


def test_a_table_altered_by_somebody_else(shop_table: Shop) -> None:
    shop_table.publish(BEFORE)
    table = shop_table.direct.load_table((shop_table.namespace, "t"))
    with table.update_schema() as update:
        update.rename_column("v", "w")
    result = shop_table.publish(AFTER)
    assert "added v string" in result.evolved and shop_table.rows() == NEW
    with pytest.raises(PublicationError, match="somebody else wrote"):
        shop_table.direct.load_table((shop_table.namespace, "t")).delete("id = 3")
        shop_table.publish(AFTER, recovery="strict")


# The network


@pytest.fixture
def toxic(toxiproxy: Path, services: Services) -> Iterator[Any]:
    """Toxiproxy in front of both services; call it with a name, a toxic's type and its attributes."""
    control_port = free_port()
    process = subprocess.Popen(
        [str(toxiproxy), "-host", "127.0.0.1", "-port", str(control_port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    base = f"http://127.0.0.1:{control_port}"
    for _attempt in range(100):
        try:
            requests.get(f"{base}/version", timeout=1)
            break
        except requests.ConnectionError:
            time.sleep(0.05)
    urls = {}
    for name in ("catalog", "minio"):
        listen = f"127.0.0.1:{free_port()}"
        upstream = services.state[name].partition("//")[2]
        requests.post(
            f"{base}/proxies", json={"name": name, "listen": listen, "upstream": upstream}, timeout=5
        )
        urls[name] = f"http://{listen}"

    class Toxic:
        catalog_url, storage_url = urls["catalog"], urls["minio"]

        def add(self, name: str, kind: str, stream: str = "downstream", **attributes: int) -> None:
            body = {"name": kind, "type": kind, "stream": stream, "attributes": attributes}
            requests.post(f"{base}/proxies/{name}/toxics", json=body, timeout=5).raise_for_status()

        def clear(self) -> None:
            requests.post(f"{base}/reset", timeout=5)

    yield Toxic()
    process.kill()
    process.wait()


def test_connections_that_are_reset_for_a_while(toxic: Any, through: Callable[..., Shop]) -> None:
    shop = through(catalog_url=toxic.catalog_url, storage_url=toxic.storage_url)
    shop.publish(BEFORE)
    for name in ("catalog", "minio"):
        toxic.add(name, "reset_peer", timeout=0)
    healed = threading.Timer(2.0, toxic.clear)
    healed.start()
    shop.publish(AFTER)
    assert shop.rows() == NEW


def test_a_slow_and_narrow_network_is_just_slow(toxic: Any, through: Callable[..., Shop]) -> None:
    shop = through(catalog_url=toxic.catalog_url, storage_url=toxic.storage_url)
    toxic.add("catalog", "latency", latency=300)
    toxic.add("minio", "bandwidth", stream="upstream", rate=500)
    shop.publish(BEFORE)
    assert shop.rows() == OLD


def test_a_catalog_that_never_answers_ends_in_time(
    toxic: Any, services: Services, namespace: str, home: FloeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("floe_dagster.bounded_http.ATTEMPTS", 2)
    plugins = services.plugins(catalog_url=toxic.catalog_url)
    assert plugins["catalog"].config is not None
    plugins["catalog"].config["timeout_seconds"] = 1
    toxic.add("catalog", "timeout", timeout=0)
    from floe_dagster.iceberg.catalogs import open_catalog

    begun = time.monotonic()
    with pytest.raises(CatalogError, match="does not answer"):
        open_catalog(**plugins, home=home)
    assert time.monotonic() - begun < 30


# The machine


def test_a_full_scratch_disk(services: Services, namespace: str, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.fail("this test mounts a small tmpfs: run it as root")
    try:
        shop = Shop(services, namespace, FloeHome(small))
        shop.publish(AFTER)
        with pytest.raises(CatalogError, match=r"(?i)space|disk"):
            shop.publish("select range as id, md5(random()::varchar) as v from range(2000000)")
        assert shop.rows() == NEW
        assert list((small / "scratch").iterdir()) == []
        shop.publish(BEFORE)
        assert shop.rows() == OLD
        assert_maintenance_finds(shop, orphans(shop))
    finally:
        subprocess.run(["umount", str(small)], check=False)


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_a_run_is_killed_around_its_commit(
    moment: str, services: Services, shop: Path, proxy: FaultProxy, floe: Callable[..., Any], home: FloeHome
) -> None:
    """kill -9 of the whole process group; the next run brings everything to where it belongs."""
    namespace = "shop"
    for name in services.objects(f"{namespace}/"):
        services.store().remove_object(control.BUCKET, name)
    (shop / "models" / "history.sql").write_text(
        "{{ config(materialized='incremental', unique_key='id') }}\n"
        "select range as id, 'run ' || coalesce((select {% if is_incremental() %} count(*) from {{ this }} {% else %} 0 "
        "{% endif %}), 0) as v from range(3)\n"
    )
    direct = Shop(services, namespace, home)
    for _namespace, name in (
        direct.direct.list_tables(namespace) if direct.direct.namespace_exists(namespace) else ()
    ):
        direct.direct.drop_table((namespace, name))
    manifest = services.write_manifest(shop.parent / "platform.yaml", catalog_url=proxy.url)
    arguments = ("run", str(shop), "--manifest", str(manifest))
    first = floe(*arguments)
    output, _ = first.communicate(timeout=180)
    assert first.returncode == 0, output
    assert [row[0] for row in direct.rows("history")] == [0, 1, 2]
    before = {name: direct.rows(name) for name in ("orders", "daily", "history")}

    second: list[Any] = []
    killed = threading.Event()

    def kill() -> None:
        os.killpg(second[0].pid, signal.SIGKILL)
        killed.set()

    if moment == "during":
        proxy.rule(applies=commits("/history"), before=lambda: threading.Timer(0.003, kill).start())
    else:
        proxy.rule(
            applies=commits("/history"), **{moment: kill}, cut="before" if moment == "before" else None
        )
    second.append(floe(*arguments))
    second[0].communicate(timeout=180)
    assert killed.is_set() and second[0].returncode == -signal.SIGKILL
    rows = direct.rows("history")
    changed = [(i, "run 3") for i in range(3)]
    assert rows == (before["history"] if moment == "before" else changed if moment == "after" else rows)
    assert rows in (before["history"], changed)

    third = floe(*arguments)
    output, _ = third.communicate(timeout=180)
    assert third.returncode == 0, output
    assert direct.rows("history") == changed
    assert direct.rows("orders") == before["orders"] and direct.rows("daily") == before["daily"]
    ids = [
        snapshot.summary.additional_properties.get(PUBLICATION_ID)
        for snapshot in direct.direct.load_table((namespace, "history")).metadata.snapshots
        if snapshot.summary
    ]
    assert len(ids) == len(set(ids))


def test_somebody_without_rights_is_told_so(services: Services, home: FloeHome) -> None:
    plugins = services.plugins()
    assert plugins["catalog"].config is not None
    plugins["catalog"].config["oauth2"]["client_id"] = "floe-narrow"
    from floe_dagster.iceberg.catalogs import open_catalog

    shop = Shop(services, "ns_forbidden", home)
    shop.catalog = open_catalog(**plugins, home=home)
    with pytest.raises(NotUsableError, match="forbids"):
        shop.publish(AFTER, layout=TableLayout())
    assert services.objects("ns_forbidden/") == set()
