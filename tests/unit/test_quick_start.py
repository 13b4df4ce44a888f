"""What a run imports, and when: its beginning needs little, and the rest comes while dbt builds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from floe_dagster.cli.dagster_home import VARIABLE, make_dagster_home, named_dagster_home
from floe_dagster.definitions.event_log import PooledSqliteEventLogStorage
from floe_dagster.execution.meanwhile import publication_made_ready
from floe_dagster.home import FloeHome

LATE = ("dbt", "grpc", "openlineage", "opentelemetry", "pyarrow", "sqlglot")
START = """
import sys
import floe_dagster.cli.run_report, floe_dagster.definitions.command_runs
import floe_dagster.definitions.factory, floe_dagster.definitions.state
from floe_dagster.execution.meanwhile import publication_made_ready
print(*sorted(sys.modules))
with publication_made_ready("duckdb"):
    pass
print(*sorted(sys.modules))
"""


def test_what_a_run_needs_late_is_imported_while_dbt_builds() -> None:
    printed = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True).stdout
    before, after = (set(line.split()) for line in printed.splitlines())
    assert before.isdisjoint(LATE)
    assert after >= {"pyiceberg.io.pyarrow", "sqlglot.lineage", "sqlglot.dialects.duckdb", "requests"}
    assert after.isdisjoint({"dbt", "openlineage"})


@pytest.mark.parametrize("dialect", ["duckdb", "trino", "no-such-dialect"])
def test_an_error_of_the_block_is_the_only_one(dialect: str) -> None:
    with pytest.raises(ZeroDivisionError), publication_made_ready(dialect):
        raise ZeroDivisionError


def test_a_home_that_a_command_makes_has_the_quick_event_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    home = FloeHome(tmp_path / "home")
    make_dagster_home(home, tmp_path)
    with named_dagster_home(home) as folder, dg.DagsterInstance.get() as instance:
        assert isinstance(instance.event_log_storage, PooledSqliteEventLogStorage)
        assert instance.get_runs() == []
        assert (folder / "history").is_dir()


@pytest.mark.parametrize("settings", ["", "telemetry: {enabled: false}\n"])
def test_a_home_that_is_there_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    home = FloeHome(tmp_path)
    file = tmp_path / "dagster" / "dagster.yaml"
    file.parent.mkdir()
    file.write_text(settings)
    make_dagster_home(home, tmp_path)
    assert file.read_text() == settings
