"""The process that imports dbt once: each command is as if it ran alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from floe_dagster.compilation.dbt_server import DbtServer
from tests.processes import runs, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each command is started by itself")

ENVIRONMENT = {**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "DBT_VERSION_CHECK": "false"}


@pytest.fixture
def server() -> Iterator[DbtServer]:
    made = DbtServer()
    yield made
    made.close()


@pytest.fixture
def endless(tmp_path: Path) -> list[str]:
    """A command that waits for ever: nobody writes its project file."""
    (tmp_path / "endless").mkdir()
    os.mkfifo(tmp_path / "endless" / "dbt_project.yml")
    return ["parse", "--project-dir", str(tmp_path / "endless"), "--profiles-dir", str(tmp_path)]


def project(folder: Path, text: str) -> list[str]:
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "one.sql").write_text(text)
    (folder / "dbt_project.yml").write_text("name: one\nversion: 1.0.0\nprofile: one\n")
    (folder / "profiles.yml").write_text("one: {target: t, outputs: {t: {type: duckdb, path: ':memory:'}}}\n")
    return ["--no-use-colors", "parse", "--project-dir", str(folder), "--profiles-dir", str(folder)]


def test_each_command_has_its_own_environment_folder_and_outcome(server: DbtServer, tmp_path: Path) -> None:
    text = "{{ config(alias=env_var('FLOE_TEST_ALIAS')) }} select 1 as one\n"
    command = project(tmp_path / "one", text)
    good = server.run(
        command, env={**ENVIRONMENT, "FLOE_TEST_ALIAS": "named"}, cwd=tmp_path, timeout_seconds=60
    )
    assert good.returncode == 0, good.stdout + good.stderr
    assert '"alias":"named"' in (tmp_path / "one" / "target" / "manifest.json").read_text().replace(" ", "")
    # What the first command was given is not there for the second.
    bad = server.run(
        [*command[:2], "--no-partial-parse", *command[2:]], env=ENVIRONMENT, cwd=tmp_path, timeout_seconds=60
    )
    assert bad.returncode == 2 and "FLOE_TEST_ALIAS" in bad.stdout
    alone = subprocess.run(
        [sys.executable, "-m", "dbt.cli.main", *command[:2], "--no-partial-parse", *command[2:]],
        env=ENVIRONMENT,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert alone.returncode == bad.returncode and "FLOE_TEST_ALIAS" in alone.stdout
    assert "FLOE_TEST_ALIAS" not in os.environ


def test_a_command_that_does_not_end_is_killed(server: DbtServer, endless: list[str], tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        server.run(endless, env=ENVIRONMENT, cwd=tmp_path, timeout_seconds=15)
    fine = server.run(["--version"], env=ENVIRONMENT, cwd=tmp_path, timeout_seconds=60)
    assert fine.returncode == 0 and "duckdb" in fine.stdout


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


@pytest.mark.parametrize("victim", ["server", "command"])
def test_what_is_killed_is_told_and_another_thread_does_not_wait(
    server: DbtServer, endless: list[str], tmp_path: Path, victim: str
) -> None:
    outcome: list[object] = []

    def ask() -> None:
        try:
            outcome.append(server.run(endless, env=ENVIRONMENT, cwd=tmp_path, timeout_seconds=60).returncode)
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_for("the command", lambda: bool(server._process and children(server._process.pid)), 60)
    assert server._process is not None
    (command,) = children(server._process.pid)
    with pytest.raises(OSError, match="another command"):
        server.run(["--version"], env=ENVIRONMENT, cwd=tmp_path, timeout_seconds=60)
    os.kill(server._process.pid if victim == "server" else command, signal.SIGKILL)
    thread.join(30)
    assert outcome == [-signal.SIGKILL] if victim == "command" else isinstance(outcome[0], OSError)
    wait_for("the end of the command", lambda: not runs(command), 60)


OWNER = """
import os, sys, time
from pathlib import Path
from floe_dagster.compilation.dbt_server import server
server.run(["--version"], env=dict(os.environ), cwd=Path.cwd(), timeout_seconds=60)
print(server._process.pid, flush=True)
if sys.argv[1] == "stays":
    time.sleep(600)
"""


@pytest.mark.parametrize("how", ["stays", "ends"])
def test_the_server_ends_with_the_process_that_asked(tmp_path: Path, how: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, how], stdout=subprocess.PIPE, env=ENVIRONMENT, cwd=tmp_path
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        if how == "stays":
            assert runs(pid)
            owner.kill()
    wait_for("the end of the server", lambda: not runs(pid), 60)
