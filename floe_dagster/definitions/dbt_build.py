"""`dbt build` of a bundle's own sources, with progress per node in the run's log."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtCliInvocation, DbtCliResource
from packaging.version import Version

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.compilation.dbt_environment import dbt_environment, is_confining
from floe_dagster.compilation.profiles import TARGET, write_profiles
from floe_dagster.definitions.dbt_process import INTERRUPT_SECONDS, ending_with_parent, owning
from floe_dagster.definitions.dbt_selection import select_exactly
from floe_dagster.definitions.observing.logs import shaped_output
from floe_dagster.definitions.progress import ProgressLog
from floe_dagster.definitions.workspaces.base import Workspace
from floe_dagster.home import FloeHome

PROGRESS_EVENTS = frozenset(
    {
        "LogStartLine",
        "LogModelResult",
        "LogTestResult",
        "LogSeedResult",
        "LogSnapshotResult",
        "LogNodeResult",
        "MainEncounteredError",
        "RunResultError",
        "RunResultFailure",
    }
)
FLAGS = ("--write-json", "--no-fail-fast")
"""Flags that a project could set otherwise in its `flags:`: without results, or with a part of them, nothing is published."""
KILLED = (
    "dbt was killed, most likely because the memory ran out: give the product a preset with a higher memory limit "
    "(resources in floe.yaml)"
)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a person asked of the run.

    Args:
        full_refresh: Rebuild incremental models and seeds from nothing.
        vars: dbt variables.
    """

    full_refresh: bool = False
    vars: Mapping[str, Any] = field(default_factory=dict)


class DbtBuild:
    """Runs `dbt build` on the sources that a bundle holds, never on the working tree.

    Args:
        context: Of the step; progress goes to its log.
        bundle: What was compiled.
        home: The writable folder.
        dbt: Says which dbt executable runs.
        options: What a person asked of the run.
        workspace: Where dbt builds.
        engine: It builds with, where that is not the product's default: dbt keeps what it parsed for each by itself.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        bundle: Bundle,
        home: FloeHome,
        dbt: DbtCliResource,
        options: RunOptions,
        workspace: Workspace,
        engine: str | None = None,
    ) -> None:
        self.context = context
        self.bundle = bundle
        self.home = home
        self.dbt = dbt
        self.options = options
        self.workspace = workspace
        self.engine = engine

    def run(self, nodes: Collection[str], on_event: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
        """Build and return dbt's `run_results.json`.

        Args:
            nodes: dbt's unique ids of all that it has to execute.
            on_event: Called with each of dbt's structured log events as it comes.

        Raises:
            dg.Failure: dbt ended before it ran a node.
        """
        slug = self.bundle.slug
        if not is_confining():
            self.context.log.warning(
                "this system has no Landlock, so the SQL of a model can read the environment of other processes of the same "
                "user, with what secrets it holds: see docs/operations.md"
            )
        unpacked = self.bundle.unpack(self.home)
        profiles_dir = write_profiles(
            self.workspace.profiles, self.home.profiles_dir(slug, self.engine), self.home
        )
        target = self.home.dbt_target_dir(slug, self.engine)
        results = target / "run_results.json"
        results.unlink(missing_ok=True)
        command = [
            self.dbt.dbt_executable,
            *("--no-version-check", "--no-use-colors", "--log-level-file", "info"),
            *self.dbt.global_config_flags,
            *("build", *FLAGS, *self.workspace.arguments()),
            *select_exactly(nodes, target.with_name(f"{target.name}-planned")),
            *("--profiles-dir", str(profiles_dir), "--profile", slug, "--target", TARGET),
        ]
        if self.options.full_refresh:
            command.append("--full-refresh")
        if self.options.vars:
            command += ["--vars", json.dumps(dict(self.options.vars))]
        # `DbtCliResource.cli` would first ask dbt for its version and open an adapter, seconds that serve
        # what is not needed here: row counts and columns are read from DuckDB directly.
        invocation = DbtCliInvocation.run(
            args=ending_with_parent(command),
            env=self._environment(unpacked.project_dir, target, self.home.logs_dir(slug)),
            manifest={},
            dagster_dbt_translator=DagsterDbtTranslator(),
            project_dir=unpacked.project_dir,
            target_path=target,
            raise_on_error=False,
            context=None,
            adapter=None,
            cli_version=Version(metadata.version("dbt-core")),
        )
        logging = self.bundle.artifact().observability.telemetry.logging
        with (
            self._ended(invocation),
            shaped_output(slug, logging, {"run_id": self.context.run.run_id}),
            ProgressLog(self.context.log) as progress,
        ):
            errors = []
            for event in invocation.stream_raw_events():
                on_event(event.raw_event)
                if message := self._log(event.raw_event, progress):
                    errors.append(message)
        return self._read(results, errors, invocation.process.returncode)

    @contextmanager
    def _ended(self, invocation: DbtCliInvocation) -> Iterator[None]:
        """Leave no dbt behind, however the step ends: it would keep the lock of the DuckDB file."""
        invocation.termination_timeout_seconds = INTERRUPT_SECONDS
        with owning(invocation.process):
            try:
                yield
            except subprocess.TimeoutExpired as error:
                # It did not end when the run was canceled, which is what this is about.
                raise error.__context__ or error from None

    def _environment(self, project_dir: Path, target: Path, logs: Path) -> dict[str, str]:
        return {
            **dbt_environment(self.home, names=self.bundle.artifact().environment or ()),
            **self.workspace.environment(),
            "PYTHONUNBUFFERED": "1",
            "DAGSTER_DBT_CLI": "true",
            "DBT_LOG_FORMAT": "json",
            "DBT_TARGET_PATH": str(target),
            "DBT_LOG_PATH": str(logs),
            "DBT_PROJECT_DIR": str(project_dir),
        }

    def _log(self, event: Mapping[str, Any], progress: ProgressLog) -> str | None:
        """Log what is worth a line; returns the message of an error."""
        info = event.get("info", {})
        message = _ANSI.sub("", str(info.get("msg") or "")).strip()
        if info.get("level") == "error" and message:
            progress.flush()
            self.context.log.error(message)
            return message
        if info.get("name") in PROGRESS_EVENTS and message:
            progress.line(message)
        return None

    def _read(self, results: Path, errors: list[str], returncode: int | None) -> dict[str, Any]:
        try:
            loaded: dict[str, Any] = json.loads(results.read_bytes())
        except FileNotFoundError:
            if returncode == -signal.SIGKILL:
                raise dg.Failure(f"{KILLED}{self.workspace.less_memory}", allow_retries=False) from None
            said = "\n".join(errors[-5:]) or "it said nothing; see this run's log"
            if locked := self.workspace.held_by(said):
                raise dg.Failure(locked, allow_retries=True) from None
            raise dg.Failure(
                f"dbt ended before it ran a model:\n{said}",
                allow_retries=self.workspace.is_transient(said),
            ) from None
        return loaded
