"""A run that is interrupted, terminated or killed takes its dbt along, and the DuckDB file is free for the next one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.definitions.observing.process import observe
from floe_dagster.definitions.sensors import build_sources_sensor
from floe_dagster.execution import dbt_process
from floe_dagster.execution.dbt_process import end, ending_with_parent, owning
from floe_dagster.home import FloeHome
from tests.conftest import ROOT
from tests.processes import dbt_below, runs, wait_for

pytestmark = pytest.mark.slow

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")


def floe_run(shop: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "FLOE_HOME": str(shop.parent / "home")}
    return subprocess.Popen(
        [Path(sys.executable).with_name("floe-dagster"), "run", shop],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=(shop.parent / "output").open("ab"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


@pytest.fixture
def stuck(shop: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A run whose dbt reads what nobody writes, and does not notice that it shall end; and the id of dbt's process."""
    yield from stuck_run(shop)


@pytest.fixture
def stuck_in_project(shop: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The same, with the instance's settings of this project, and lineage events in a file."""
    settings = shop.parent / "deploy" / "local" / "dagster.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_bytes((ROOT / "deploy" / "local" / "dagster.yaml").read_bytes())
    with (shop.parent / "manifest.yaml").open("a") as manifest:
        manifest.write("observability: {lineage: {transport: file}}\n")
    yield from stuck_run(shop)


def stuck_run(shop: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    os.mkfifo(shop.parent / "fifo")
    (shop / "models" / "daily.sql").write_text(
        f"select count(content) as n from {{{{ ref('orders') }}}} cross join read_text('{shop.parent / 'fifo'}')\n"
    )
    run = floe_run(shop)
    try:
        found: list[int] = []

        def reads() -> bool:
            assert run.poll() is None, (shop.parent / "output").read_text()
            found[:] = [dbt] if (dbt := dbt_below(run.pid)) else []
            return bool(found) and any(
                "fifo" in str(path) or "shop.duckdb" in str(path) for path in open_files(found[0])
            )

        wait_for("dbt to open the DuckDB file", reads, 300)
        yield run, found[0]
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait(30)


def open_files(pid: int) -> list[Path]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            found.append(entry.readlink())
        except OSError:
            continue
    return found


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_ends_early_leaves_no_dbt_and_the_next_one_runs(
    stuck: tuple[subprocess.Popen[bytes], int], shop: Path, number: signal.Signals
) -> None:
    run, dbt = stuck
    run.send_signal(number)
    # A person who interrupts it does not want another attempt.
    assert run.wait(60) == (-number if number == signal.SIGKILL else 130)
    wait_for("the end of dbt", lambda: not runs(dbt), 60)
    (shop / "models" / "daily.sql").write_text("select count(*) as n from {{ ref('orders') }}\n")
    again = floe_run(shop)
    assert again.wait(120) == 0, (shop.parent / "output").read_text()


@linux
@pytest.mark.parametrize("who", ["next command", "sensor"])
def test_a_command_that_is_killed_holds_up_nobody_and_its_run_comes_to_an_end(
    stuck_in_project: tuple[subprocess.Popen[bytes], int],
    shop: Path,
    who: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, dbt = stuck_in_project
    run.kill()
    run.wait(60)
    wait_for("the end of dbt", lambda: not runs(dbt), 60)
    (shop / "models" / "daily.sql").write_text("select count(*) as n from {{ ref('orders') }}\n")
    home = FloeHome(shop.parent / "home")
    monkeypatch.setenv("DAGSTER_HOME", str(home.path / "dagster"))
    if who == "sensor":
        artifact = compile_product(shop, home=home)
        assert artifact.bundle is not None
        told = partial(observe, artifact.bundle.artifact(), artifact.bundle.index(), shop, home)
        sensor = build_sources_sensor("shop", shop, None, home, None, observed=told)
        with dg.DagsterInstance.get() as instance, dg.build_sensor_context(instance) as context:
            sensor(context)
            assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.FAILURE]
    assert floe_run(shop).wait(120) == 0, (shop.parent / "output").read_text()

    with dg.DagsterInstance.get() as instance:
        # One at a time, as `make setup` sets it: the killed run must not have kept the only slot.
        assert instance.get_settings("concurrency")["pools"]["default_limit"] == 1
        second, first = instance.get_runs()
    assert (first.status, second.status) == (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS)
    said = f"run {first.run_id[:8]} was killed" in (shop.parent / "output").read_text()
    assert said == (who == "next command")
    events = [json.loads(line) for line in (shop.parent / "home" / "lineage.jsonl").read_text().splitlines()]
    ends = {event["run"]["runId"]: event["eventType"] for event in events}
    assert ends[first.run_id] == "FAIL" and ends[second.run_id] == "COMPLETE"
    assert not [event for event in ends.values() if event in ("START", "RUNNING")]


def test_two_commands_for_one_product_take_turns(
    stuck_in_project: tuple[subprocess.Popen[bytes], int], shop: Path
) -> None:
    first, dbt = stuck_in_project
    second = floe_run(shop)
    output = shop.parent / "output"
    wait_for("the second to wait", lambda: "waiting for another floe-dagster run" in output.read_text(), 300)
    assert first.poll() is None and runs(dbt)
    assert "was killed" not in output.read_text()
    first.kill()
    first.wait(60)
    try:
        wait_for("the second to find the first one's run", lambda: "was killed" in output.read_text(), 300)
    finally:
        os.killpg(second.pid, signal.SIGKILL)
        second.wait(30)


PARENT = """
import subprocess, sys, time
from floe_dagster.execution.dbt_process import ending_with_parent
child = subprocess.Popen(ending_with_parent([sys.executable, "-c", "import time; time.sleep(600)"]))
print(child.pid, flush=True)
time.sleep(600)
"""


@linux
def test_a_process_is_ended_with_the_one_that_started_it() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_for("the program", lambda: os.getpgid(child) == child, 60)
    assert runs(child)
    parent.kill()
    parent.wait(10)
    wait_for("the end of the child", lambda: not runs(child), 60)


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
POLITE = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
try:
    print(child.pid, flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    raise SystemExit(7)
"""


# Who is polite ends long before, also where the machine is busy; who is stubborn is waited for in vain.
@pytest.mark.parametrize(
    ("code", "status", "seconds"),
    [(STUBBORN, -signal.SIGKILL, 2), (POLITE, 7, 60)],
    ids=["stubborn", "polite"],
)
def test_the_end_of_a_process_is_the_end_of_all_that_it_started(
    code: str, status: int, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dbt_process, "INTERRUPT_SECONDS", seconds)
    process = subprocess.Popen(ending_with_parent([sys.executable, "-c", code]), stdout=subprocess.PIPE)
    assert process.stdout is not None
    below = int(process.stdout.readline())
    end(process)
    assert process.returncode == status
    wait_for("the end of what it started", lambda: not runs(below), 60)
    # A second time there is nothing to end.
    end(process)


def test_what_was_started_in_the_background_of_a_script_can_be_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dbt_process, "INTERRUPT_SECONDS", 60)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(ending_with_parent([sys.executable, "-c", POLITE]), stdout=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    process.stdout.readline()
    end(process)
    assert process.returncode == 7


LEAVING = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
"""


def test_what_a_process_leaves_does_not_hold_up_who_reads_its_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dbt_process, "LINGER_SECONDS", 1)
    process = subprocess.Popen(ending_with_parent([sys.executable, "-c", LEAVING]), stdout=subprocess.PIPE)
    begun = time.monotonic()
    with owning(process):
        assert process.stdout is not None
        below = int(process.stdout.read())
    assert process.returncode == 0 and time.monotonic() - begun < 20
    wait_for("the end of what it started", lambda: not runs(below), 60)


HOLDER = """
import sys, duckdb
with duckdb.connect(sys.argv[1]) as con:
    print("open", flush=True)
    sys.stdin.read()
"""


def test_who_else_has_the_duckdb_file_open_is_named(shop: Path, home: FloeHome) -> None:
    result = compile_product(shop, home=home)
    assert result.bundle is not None
    job = build_product_definitions(result.bundle, product_dir=shop, home=home).resolve_job_def("shop_run")
    assert job.execute_in_process().success
    (file,) = home.path.rglob("shop.duckdb")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None and holder.stdout.readline()
        with pytest.raises(duckdb.IOException):
            duckdb.connect(str(file), read_only=True)
        # It lets go between the first attempt and the second.
        letting_go = threading.Timer(4, holder.stdin.close)
        letting_go.start()
        try:
            ran = job.execute_in_process(raise_on_error=False)
        finally:
            letting_go.join()
        (first,) = [event for event in ran.all_events if event.is_step_up_for_retry]
        error = first.event_specific_data.error  # type: ignore[union-attr]
        told = str(error.cause or error) + str(error)
        assert f"PID {holder.pid}" in told and f"kill {holder.pid}" in told and str(file) in told
        assert ran.success
    assert isinstance(ran, dg.ExecuteInProcessResult)
