"""`dbt build` of a bundle's own sources, with progress per node in the run's log."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from floe_dagster.atomic import write_atomically
from floe_dagster.compilation.bundle import Bundle
from floe_dagster.compilation.dbt_batches import continue_variable
from floe_dagster.compilation.dbt_command import NOT_USABLE
from floe_dagster.compilation.dbt_environment import dbt_environment, is_confining
from floe_dagster.compilation.dbt_flags import overriding
from floe_dagster.compilation.parse_state import usable_state
from floe_dagster.compilation.profiles import TARGET, write_profiles
from floe_dagster.execution.context import RunContext
from floe_dagster.execution.dbt_process import dbt_events, owning
from floe_dagster.execution.dbt_selection import select_exactly
from floe_dagster.execution.errors import DbtError, WorkspaceError
from floe_dagster.execution.progress import ProgressLog
from floe_dagster.execution.workspaces.base import Workspace
from floe_dagster.home import FloeHome
from floe_dagster.observability.printed import shaped_output

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


class DbtBuild:
    """Runs `dbt build` on the sources that a bundle holds, never on the working tree.

    Args:
        context: Of the run; progress goes to its log.
        bundle: What was compiled.
        home: The writable folder.
        workspace: Where dbt builds.
        engine: It builds with, where that is not the product's default: dbt keeps what it parsed for each by itself.
    """

    def __init__(
        self,
        context: RunContext,
        bundle: Bundle,
        home: FloeHome,
        workspace: Workspace,
        engine: str | None = None,
    ) -> None:
        self.context = context
        self.bundle = bundle
        self.home = home
        self.workspace = workspace
        self.engine = engine

    def run(
        self,
        nodes: Collection[str],
        on_event: Callable[[Mapping[str, Any]], None],
        *,
        batches_from: Mapping[str, datetime] | None = None,
    ) -> dict[str, Any]:
        """Build and return dbt's `run_results.json`.

        Args:
            nodes: dbt's unique ids of all that it has to execute.
            on_event: Called with each of dbt's structured log events as it comes.
            batches_from: Where microbatch models go on, by dbt's unique id.

        Raises:
            DbtError: dbt ended before it ran a node.
            WorkspaceError: It did because another process holds what it builds in.
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
        ours = overriding(unpacked.project_dir)
        arguments = [
            self.context.dbt.executable,
            *("--no-version-check", "--no-use-colors", "--log-level-file", "info"),
            *ours.options,
            *self.context.dbt.flags,
            *("build", *FLAGS, *self.workspace.arguments()),
            *select_exactly(nodes, target.with_name(f"{target.name}-planned")),
            *("--profiles-dir", str(profiles_dir), "--profile", slug, "--target", TARGET),
        ]
        if self.context.options.full_refresh:
            arguments.append("--full-refresh")
        if self.context.options.vars:
            arguments += ["--vars", json.dumps(dict(self.context.options.vars))]
        environment = {
            **self._environment(unpacked.project_dir, target, self.home.logs_dir(slug)),
            **continue_variable(batches_from or {}),
            **ours.environment,
        }
        state = self._state(environment, target)
        errors, returncode = self._follow(arguments, environment, unpacked.project_dir, state, on_event)
        return self._read(results, errors, returncode)

    def _follow(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        project_dir: Path,
        state: Path | None,
        on_event: Callable[[Mapping[str, Any]], None],
    ) -> tuple[list[str], int | None]:
        """Run dbt to its end and return what it called an error, and how it ended."""
        errors = []
        command = " ".join(arguments)
        process = self.context.dbt.start(arguments, environment, project_dir, state)
        # However the step ends: a dbt that is left behind would keep the lock of the DuckDB file.
        with owning(process):
            self.context.log.info(f"Running dbt command: `{command}`.")
            logging = self.bundle.artifact().observability.telemetry.logging
            with (
                shaped_output(self.bundle.slug, logging, {"run_id": self.context.identity.run_id}),
                ProgressLog(self.context.log) as progress,
            ):
                for event in dbt_events(process):
                    on_event(event)
                    if message := self._log(event, progress):
                        errors.append(message)
            self.context.log.info(f"Finished dbt command: `{command}`.")
        return errors, process.returncode

    def _state(self, environment: Mapping[str, str], target: Path) -> Path | None:
        """Return what the compilation has parsed; None where dbt has to parse, and the log says why."""
        why: str | None
        if not self.context.dbt.is_own:
            why = "the resource names a dbt that is not this environment's"
        elif self.context.dbt.flags:
            why = "the resource gives dbt global flags, which may change what it builds"
        else:
            found = usable_state(
                self.bundle,
                self.engine or self.bundle.artifact().default_engine,
                environment,
                variables=self.context.options.vars,
                full_refresh=self.context.options.full_refresh,
            )
            if found.content is not None:
                path = target / "parsed.msgpack"
                write_atomically(path, found.content)
                return path
            why = found.why_not
        self.context.log.info(f"dbt parses the project: {why}")
        return None

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
        if info.get("name") in (*PROGRESS_EVENTS, NOT_USABLE) and message:
            progress.line(message)
        return None

    def _read(self, results: Path, errors: list[str], returncode: int | None) -> dict[str, Any]:
        try:
            loaded: dict[str, Any] = json.loads(results.read_bytes())
        except FileNotFoundError:
            if returncode == -signal.SIGKILL:
                raise DbtError(f"{KILLED}{self.workspace.less_memory}", transient=False) from None
            said = "\n".join(errors[-5:]) or "it said nothing; see this run's log"
            if locked := self.workspace.held_by(said):
                raise WorkspaceError(locked, transient=True) from None
            who = self.context.dbt.shown
            raise DbtError(
                f"{who} ended before it ran a model:\n{said}", transient=self.workspace.is_transient(said)
            ) from None
        return loaded
