"""The process that imports dbt once: each command is as if it ran alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from floe_dagster.compilation import dbt_server
from floe_dagster.compilation.dbt_child import landlock_version
from floe_dagster.compilation.dbt_server import DbtServer
from tests.processes import parent_of, runs, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each command is started by itself"),
]

ENVIRONMENT = {**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "DBT_VERSION_CHECK": "false"}

DBT_SETS = {f"DBT_ENGINE_{name}" for name in ("SEND_ANONYMOUS_USAGE_STATS", "VERSION_CHECK")}
"""dbt adds the new names of its own variables."""


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


@pytest.mark.parametrize("victim", ["server", "command"])
def test_what_is_killed_is_told_and_commands_run_side_by_side(
    server: DbtServer, endless: list[str], tmp_path: Path, victim: str
) -> None:
    process = server.start(endless, env=ENVIRONMENT, cwd=tmp_path)
    try:
        assert os.getpgid(process.pid) == process.pid and process.poll() is None
        quick = server.run(["--version"], env=ENVIRONMENT, cwd=tmp_path, timeout_seconds=60)
        assert quick.returncode == 0 and "duckdb" in quick.stdout
        os.kill(parent_of(process.pid) if victim == "server" else process.pid, signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL and process.is_lost == (victim == "server")
        wait_for("the end of the command", lambda: not runs(process.pid), 60)
    finally:
        process.close()
    # A server that was killed is started again.
    assert server.run(["--version"], env=ENVIRONMENT, cwd=tmp_path, timeout_seconds=60).returncode == 0


def test_output_comes_while_the_command_runs_and_an_interrupt_ends_it_as_dbt_ends(
    server: DbtServer, tmp_path: Path
) -> None:
    command = project(
        tmp_path / "one", "select count(*) as n from range(1000000000) a, range(1000000000) b\n"
    )
    command[command.index("parse")] = "build"
    process = server.start(command, env=ENVIRONMENT, cwd=tmp_path)
    try:
        assert process.stdout is not None
        seen = b""
        while b"1 of 1 START" not in seen:
            line = process.stdout.readline()
            assert line, seen
            seen += line
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (1, 2)
    finally:
        process.close()


def test_what_a_command_has_started_ends_with_it(server: DbtServer, tmp_path: Path) -> None:
    (tmp_path / "started.py").write_text(
        "import subprocess, sys\n"
        "def model(dbt, session):\n"
        "    dbt.config(materialized='table')\n"
        "    child = subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)\n"
        f"    open('{tmp_path / 'child'}', 'w').write(str(child.pid))\n"
        "    return session.sql('select 1 as one')\n"
    )
    command = project(tmp_path / "one", "select 1 as one\n")
    command[command.index("parse")] = "build"
    (tmp_path / "started.py").rename(tmp_path / "one" / "models" / "started.py")
    process = server.start(command, env=ENVIRONMENT, cwd=tmp_path)
    assert process.stdout is not None
    output = process.stdout.read()
    assert process.wait(60) == 0, output
    child = int((tmp_path / "child").read_text())
    assert runs(child)
    process.close()
    wait_for("the end of what it started", lambda: not runs(child), 60)


LOOKING = """
import os, pathlib
def model(dbt, session):
    dbt.config(materialized='table')
    def seen(pid):
        try:
            return len(pathlib.Path(f'/proc/{{pid}}/environ').read_bytes())
        except OSError as error:
            return type(error).__name__
    pids = {{'server': os.getppid(), 'sibling': {sibling}, 'owner': {owner}, 'itself': os.getpid()}}
    lines = [f'{{name}}: {{seen(pid)}}' for name, pid in pids.items()]
    links = [f'/proc/self/fd/{{fd}}' for fd in os.listdir('/proc/self/fd')]
    lines.append('descriptors: ' + ' '.join(os.readlink(link) for link in links if os.path.islink(link)))
    lines.append('variables: ' + ' '.join(os.environ))
    open('{folder}/seen', 'w').write('\\n'.join(lines))
    return session.sql('select 1 as one')
"""


@pytest.mark.skipif(not landlock_version(), reason="this system has no Landlock")
def test_a_command_sees_neither_the_server_nor_another_command_nor_who_asked(
    server: DbtServer, endless: list[str], tmp_path: Path
) -> None:
    sibling = server.start(endless, env=ENVIRONMENT, cwd=tmp_path)
    try:
        command = project(tmp_path / "one", "select 1 as one\n")
        command[command.index("parse")] = "build"
        (tmp_path / "one" / "models" / "looking.py").write_text(
            LOOKING.format(sibling=sibling.pid, owner=os.getpid(), folder=tmp_path)
        )
        folder = Path(f"/proc/{parent_of(sibling.pid)}/fd")
        held = {link for fd in folder.iterdir() if "anon_inode" not in (link := str(fd.readlink()))}
        done = server.run(command, env={**ENVIRONMENT, "FLOE_TEST": "1"}, cwd=tmp_path, timeout_seconds=60)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        sibling.close()
    seen = dict(line.split(": ", 1) for line in (tmp_path / "seen").read_text().splitlines())
    assert {seen[name] for name in ("server", "sibling", "owner")} == {"PermissionError"}
    assert int(seen["itself"]) > 0
    # Sockets and the like that dbt has made for itself are another's for nobody.
    assert not set(seen["descriptors"].split()) & held - {"/dev/null"}
    assert set(seen["variables"].split()) - {"LC_CTYPE"} <= {*ENVIRONMENT, "FLOE_TEST"} | DBT_SETS


def test_what_takes_effect_at_a_programs_start_is_refused(server: DbtServer, tmp_path: Path) -> None:
    for name in ("PYTHONWARNINGS", "LD_PRELOAD"):
        with pytest.raises(OSError, match=name):
            server.start(["--version"], env={**ENVIRONMENT, name: "x"}, cwd=tmp_path)


def test_a_server_is_warmed_without_waiting(server: DbtServer, tmp_path: Path) -> None:
    begun = time.monotonic()
    server.warm()
    assert time.monotonic() - begun < 1
    assert server.run(["--version"], env=ENVIRONMENT, cwd=tmp_path, timeout_seconds=60).returncode == 0


OWNER = """
import os, sys, time
from pathlib import Path
from floe_dagster.compilation.dbt_server import server
process = server.start(["--version"], env=dict(os.environ), cwd=Path.cwd())
print(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1], flush=True)
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


def test_a_server_that_does_not_answer_is_ended_and_the_next_command_has_another(
    server: DbtServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever keeps it: a stopped process takes the message, and says nothing."""
    command = project(tmp_path / "one", "select 1 as one\n")
    assert server.run(command, env=ENVIRONMENT, cwd=tmp_path, timeout_seconds=60).returncode == 0
    silent = server._process
    assert silent is not None
    os.kill(silent.pid, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(dbt_server, "START_SECONDS", 1)
        with pytest.raises(OSError, match="does not answer"):
            server.run(command, env=ENVIRONMENT, cwd=tmp_path, timeout_seconds=60)
    assert not runs(silent.pid)
    assert server.run(command, env=ENVIRONMENT, cwd=tmp_path, timeout_seconds=60).returncode == 0
