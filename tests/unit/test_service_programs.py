"""Services' secrets are their owner's alone, and a service that is ended is gone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy.services.environment import read_environment, write_environment
from deploy.services.programs import ServiceError, is_alive, need, open_private, run, stop_process


def test_secrets_are_private_also_where_the_file_was_open_to_all(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    file.write_text("OLD=1\n")
    file.chmod(0o644)
    write_environment(tmp_path, {"NAME": "a=b", "OTHER": ""})
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_environment(tmp_path) == {"NAME": "a=b", "OTHER": ""}
    assert read_environment(tmp_path / "nowhere") == {}


def test_a_log_is_private_also_where_it_was_open_to_all(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    log.chmod(0o644)
    with open(log, "a", opener=open_private) as file:
        file.write("after\n")
    assert log.stat().st_mode & 0o777 == 0o600 and log.read_text() == "before\nafter\n"


def test_a_process_that_is_ended_is_gone() -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        assert is_alive(process.pid)
        stop_process(process.pid)
        assert not is_alive(process.pid)
        stop_process(process.pid)


def test_what_fails_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServiceError, match="on both"):
        run(["sh", "-c", "echo on; echo both >&2; printf 'on both' >&2; exit 3"])
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ServiceError, match=r"go is missing: .*go\.dev"):
        need("go")
