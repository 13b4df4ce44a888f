"""`dbt build` of a bundle's own sources, with progress per node in the run's log."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.compilation.profiles import TARGET, write_profiles
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
_INFRASTRUCTURE = re.compile(r"\bIO Error\b|Could not set lock|No space left on device")
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
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        bundle: Bundle,
        home: FloeHome,
        dbt: DbtCliResource,
        options: RunOptions,
    ) -> None:
        self.context = context
        self.bundle = bundle
        self.home = home
        self.dbt = dbt
        self.options = options

    def run(self, selection: Sequence[str], profiles: Mapping[str, Any]) -> dict[str, Any]:
        """Build and return dbt's `run_results.json`.

        Args:
            selection: Arguments that choose the nodes; none for all.
            profiles: `dbt_profiles` of the artifact.

        Raises:
            dg.Failure: dbt ended before it ran a node.
        """
        slug = self.bundle.slug
        unpacked = self.bundle.unpack(self.home)
        profiles_dir = write_profiles(profiles, self.home.profiles_dir(slug), self.home)
        target = self.home.dbt_target_dir(slug)
        results = target / "run_results.json"
        results.unlink(missing_ok=True)
        dbt = DbtCliResource(
            project_dir=str(unpacked.project_dir),
            profiles_dir=str(profiles_dir),
            profile=slug,
            target=TARGET,
            dbt_executable=self.dbt.dbt_executable,
            global_config_flags=[
                "--no-send-anonymous-usage-stats",
                "--no-version-check",
                "--no-use-colors",
                *self.dbt.global_config_flags,
            ],
        )
        arguments = ["build", *selection, "--log-path", str(self.home.logs_dir(slug))]
        if self.options.full_refresh:
            arguments.append("--full-refresh")
        if self.options.vars:
            arguments += ["--vars", json.dumps(dict(self.options.vars))]
        invocation = dbt.cli(
            arguments, raise_on_error=False, manifest=unpacked.manifest_path, target_path=target
        )
        errors = [
            message for event in invocation.stream_raw_events() if (message := self._log(event.raw_event))
        ]
        return self._read(results, errors)

    def _log(self, event: Mapping[str, Any]) -> str | None:
        """Log what is worth a line; returns the message of an error."""
        info = event.get("info", {})
        message = _ANSI.sub("", str(info.get("msg") or "")).strip()
        if info.get("level") == "error" and message:
            self.context.log.error(message)
            return message
        if info.get("name") in PROGRESS_EVENTS and message:
            self.context.log.info(message)
        return None

    def _read(self, results: Path, errors: list[str]) -> dict[str, Any]:
        try:
            loaded: dict[str, Any] = json.loads(results.read_bytes())
        except FileNotFoundError:
            said = "\n".join(errors[-5:]) or "it said nothing; see this run's log"
            raise dg.Failure(
                f"dbt ended before it ran a model:\n{said}",
                allow_retries=is_infrastructure(said),
            ) from None
        return loaded


def is_infrastructure(message: str) -> bool:
    """Return whether trying again may help: the DuckDB file is busy, the disk is full."""
    return bool(_INFRASTRUCTURE.search(message))
