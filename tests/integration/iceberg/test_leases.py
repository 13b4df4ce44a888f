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
from pyiceberg.exceptions import BadRequestError, ForbiddenError

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


def test_one_that_was_taken_for_killed_learns_of_it_and_leaves_the_other_s_lease(catalog: Any) -> None:
    said: list[str] = []
    quick = {"place": "one", "renew_seconds": 0.2}
    with lease(catalog, "audit", holder="run a", say=said.append, **quick) as held:
        held.check()
        with lease(catalog, "audit", holder="run b", say=print, **quick) as other:
            wait_for("the renewal", lambda: said, seconds=60)
            assert said[0].startswith("run b has begun to write audit, since this run was not heard of")
            with pytest.raises(LeaseError, match="run b has begun to write audit"):
                held.check()
            other.check()
    assert RENEWAL not in catalog.load_namespace_properties("audit")


@pytest.mark.slow
@pytest.mark.parametrize("arrives", [True, False])
def test_a_catalog_that_answers_nothing_for_a_while_takes_nobody_s_lease(
    catalog: Any, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    """Neither where renewals get through and their answers do not, nor where whoever waits hears nothing."""
    told: list[str] = []
    send, read = SqlCatalog.update_namespace_properties, SqlCatalog.load_namespace_properties
    away = threading.Event()

    def sending(self: SqlCatalog, *arguments: Any, **options: Any) -> Any:
        if away.is_set() and not arrives:
            raise ConnectionError("no answer")
        answer = send(self, *arguments, **options)
        if away.is_set():
            raise ConnectionError("no answer")
        return answer

    def reading(self: SqlCatalog, *arguments: Any, **options: Any) -> Any:
        if away.is_set() and not arrives:
            time.sleep(3)
            raise ConnectionError("no answer")
        return read(self, *arguments, **options)

    monkeypatch.setattr(SqlCatalog, "update_namespace_properties", sending)
    monkeypatch.setattr(SqlCatalog, "load_namespace_properties", reading)
    began = threading.Event()

    def second() -> None:
        with lease(catalog, "audit", holder="run b", place="b", say=told.append, stale_seconds=4):
            began.set()

    with lease(catalog, "audit", holder="run a", place="a", say=print, renew_seconds=0.2, stale_seconds=4):
        waiting = threading.Thread(target=second)
        waiting.start()
        wait_for("the second to wait", lambda: told, seconds=60)
        away.set()
        time.sleep(8)
        away.clear()
        assert not began.wait(2)
    waiting.join(60)
    assert told == ["waiting for run a, which writes audit"] and began.is_set()


def test_a_block_that_fails_gives_its_lease_back(catalog: Any, hold: Hold) -> None:
    with pytest.raises(ZeroDivisionError), hold("run a"):
        _ = 1 / 0
    assert RENEWAL not in catalog.load_namespace_properties("audit")


@pytest.mark.parametrize(
    "refusal", [NotImplementedError(), ForbiddenError("not yours"), BadRequestError("no")]
)
def test_a_catalog_without_properties_of_namespaces_is_written_to_without_a_lease(
    hold: Hold, monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise refusal

    monkeypatch.setattr(SqlCatalog, "update_namespace_properties", refuse)
    monkeypatch.setattr(leases, "SETTLE_SECONDS", 0)
    with hold("run a") as said:
        why = str(refusal) or "it keeps none"
        assert said == [
            f"runs on other machines are not waited for: the properties of audit could not be set: {why}"
        ]
    with pytest.raises(ZeroDivisionError) as failed, hold("run a"):
        _ = 1 / 0
    assert failed.value.__context__ is None
