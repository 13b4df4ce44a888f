"""Leases on a schema: who waits, for whom, and what becomes of one whose holder was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from floe_dagster.home import FloeHome
from floe_dagster.iceberg import leases
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.leases import HOLDER, PLACE, RENEWAL, LeaseError, lease
from tests.processes import wait_for

Hold = Callable[..., AbstractContextManager[list[str]]]


@pytest.fixture
def catalog(home: FloeHome) -> Any:
    opened = open_catalog(None, None, home=home)
    opened.create_namespace("audit")
    return opened


@pytest.fixture
def hold(catalog: Any) -> Hold:
    """Holds the lease; gives what its holder was told."""

    @contextmanager
    def held(holder: str, place: str | None = None, **options: Any) -> Iterator[list[str]]:
        said: list[str] = []
        settings = {"renew_seconds": 0.2, "stale_seconds": 2, "wait_seconds": 120, **options}
        with lease(catalog, "audit", holder=holder, place=place or holder, say=said.append, **settings):
            yield said

    return held


def test_the_second_waits_for_the_first_however_long_it_takes(catalog: Any, hold: Hold) -> None:
    order: list[str] = []
    told: list[str] = []

    def second() -> None:
        with hold("run b") as said:
            order.append("b began")
            told.extend(said)

    with hold("run a", stale_seconds=60):
        waiting = threading.Thread(target=second)
        waiting.start()
        # Longer than a holder may be silent.
        time.sleep(5)
        assert catalog.load_namespace_properties("audit")[HOLDER] == "run a"
        order.append("a ends")
    waiting.join(60)
    assert order == ["a ends", "b began"]
    assert told == ["waiting for run a, which writes audit"]
    assert {HOLDER, PLACE, RENEWAL}.isdisjoint(catalog.load_namespace_properties("audit"))


def test_of_two_that_ask_at_once_one_has_it(hold: Hold) -> None:
    inside = 0
    most = 0
    guard = threading.Lock()

    def work(name: str) -> None:
        nonlocal inside, most
        with hold(name, stale_seconds=60):
            with guard:
                inside += 1
                most = max(most, inside)
            time.sleep(0.3)
            with guard:
                inside -= 1

    workers = [threading.Thread(target=work, args=(f"run {number}",)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert most == 1 and inside == 0


HOLDS = """\
import sys, time
from pathlib import Path
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.leases import lease
catalog = open_catalog(None, None, home=FloeHome(Path(sys.argv[1])))
with lease(catalog, "audit", holder="run a", place="there", say=print, renew_seconds=0.2):
    time.sleep(600)
"""


@pytest.mark.parametrize("place", ["here", "there"])
def test_a_holder_that_was_killed_is_not_waited_for(
    catalog: Any, hold: Hold, home: FloeHome, place: str
) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(home.path)], cwd=Path.cwd(), env=os.environ)
    try:
        wait_for(
            "the lease",
            lambda: catalog.load_namespace_properties("audit").get(HOLDER) == "run a",
            seconds=120,
        )
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    begun = time.monotonic()
    with hold("run b", place, stale_seconds=4) as said:
        waited = time.monotonic() - begun
    if place == "there":
        # The lock of that place says that nobody else writes there.
        assert said == []
    else:
        assert waited > 4
        assert said[0] == "waiting for run a, which writes audit"
        assert said[1].startswith("run a was not heard of for 4 s: it is taken for killed")


def test_who_waits_in_vain_says_for_whom(hold: Hold) -> None:
    with (
        hold("run a on that machine", stale_seconds=60),
        pytest.raises(LeaseError, match=r"run a on that machine writes audit for over 1 seconds; end it"),
        hold("run b", stale_seconds=60, wait_seconds=1),
    ):
        pass


def test_one_that_was_taken_for_killed_learns_of_it_and_leaves_the_other_s_lease(
    catalog: Any, hold: Hold
) -> None:
    with hold("run b") as said, hold("run a", "run b") as other:
        wait_for("the renewal", lambda: said, seconds=60)
        assert "another run has begun to write audit" in said[0]
        assert other == []
    assert RENEWAL not in catalog.load_namespace_properties("audit")


def test_a_block_that_fails_gives_its_lease_back(catalog: Any, hold: Hold) -> None:
    with pytest.raises(ZeroDivisionError), hold("run a"):
        _ = 1 / 0
    assert RENEWAL not in catalog.load_namespace_properties("audit")


def test_a_catalog_without_properties_of_namespaces_is_written_to_without_a_lease(
    hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(SqlCatalog, "update_namespace_properties", refuse)
    monkeypatch.setattr(leases, "SETTLE_SECONDS", 0)
    with hold("run a") as said:
        assert said == [
            "runs on other machines are not waited for: the properties of audit could not be set: the catalog keeps none"
        ]
