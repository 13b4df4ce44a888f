"""dbt's own manifest of a product, from `dbt parse`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floe_dagster.compilation.dbt_environment import confined
from floe_dagster.compilation.dbt_flags import overriding
from floe_dagster.compilation.dbt_messages import DbtMessages, last_line
from floe_dagster.compilation.packages import PACKAGE_FILES
from floe_dagster.compilation.profiles import TARGET
from floe_dagster.findings import Finding

_MACHINE_SPECIFIC = (
    "generated_at",
    "invocation_id",
    "invocation_started_at",
    "run_started_at",
    "env",
    "user_id",
    "send_anonymous_usage_stats",
)


@dataclass(frozen=True, slots=True)
class DbtParse:
    """What `dbt parse` gave.

    Args:
        manifest: dbt's manifest without what only this machine and this moment know; None on failure.
        findings: Errors and warnings of dbt.
    """

    manifest: dict[str, Any] | None
    findings: list[Finding]


def dbt_command() -> list[str]:
    """Return how dbt is started: the one of this very environment, whatever PATH says."""
    return [sys.executable, "-m", "dbt.cli.main"]


def parse_project(
    project_dir: Path,
    *,
    profile: str,
    profiles_dir: Path,
    target_dir: Path,
    logs_dir: Path,
    environ: Mapping[str, str],
    path_prefix: str,
    timeout_seconds: float = 1800,
) -> DbtParse:
    """Run `dbt parse` on a project and return its manifest.

    Args:
        project_dir: A folder with staged sources; dbt does not write into it.
        profile: Name of the profile, whatever `dbt_project.yml` says of one.
        profiles_dir: Folder with the generated `profiles.yml`.
        target_dir: dbt's target folder; partial parsing keeps its state there.
        logs_dir: dbt's log folder.
        environ: See `dbt_environment.dbt_environment`.
        path_prefix: Display path of the product's folder, put before dbt's paths in findings.
        timeout_seconds: After so long dbt is killed and a finding says so.
    """
    ours = overriding(project_dir, frozenset({"log_level"}))
    args = [
        "--log-format",
        "json",
        "--log-level",
        "warn",
        "--log-level-file",
        "none",
        *ours.options,
        "parse",
        "--write-json",
        "--project-dir",
        str(project_dir),
        "--profile",
        profile,
        "--target",
        TARGET,
        "--profiles-dir",
        str(profiles_dir),
        "--target-path",
        str(target_dir),
        "--log-path",
        str(logs_dir),
    ]
    manifest_path = target_dir / "manifest.json"
    manifest_path.unlink(missing_ok=True)
    try:
        done = _run(args, {**environ, **ours.environment}, project_dir, timeout_seconds)
    except subprocess.TimeoutExpired:
        return DbtParse(
            None,
            [_failure(f"dbt parse did not end within {timeout_seconds:g} seconds", path_prefix)],
        )
    findings = DbtMessages(project_dir, path_prefix).findings(done.stdout)
    if done.returncode == 0 and manifest_path.is_file():
        return DbtParse(_read_manifest(manifest_path), findings)
    if not any(finding.severity == "error" for finding in findings):
        findings.append(_failure(f"dbt parse failed: {_end_of(done)}", path_prefix))
    return DbtParse(None, findings)


def _run(
    args: list[str], environ: Mapping[str, str], cwd: Path, timeout_seconds: float | None = None
) -> subprocess.CompletedProcess[str]:
    from floe_dagster.compilation.dbt_server import server

    with suppress(OSError):
        return server.run(args, env=environ, cwd=cwd, timeout_seconds=timeout_seconds)
    return subprocess.run(
        confined([*dbt_command(), *args]),
        env=dict(environ),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_seconds,
    )


def run_deps(
    project_dir: Path,
    *,
    profile: str,
    profiles_dir: Path,
    logs_dir: Path,
    environ: Mapping[str, str],
    path_prefix: str,
) -> list[Finding]:
    """Vendor the project's dbt packages into the staged sources with `dbt deps`; see `parse_project`.

    Returns:
        No finding when it worked.
    """
    args = [
        "--log-format",
        "json",
        "--log-level-file",
        "none",
        "deps",
        "--project-dir",
        str(project_dir),
        "--profile",
        profile,
        "--target",
        TARGET,
        "--profiles-dir",
        str(profiles_dir),
        "--log-path",
        str(logs_dir),
    ]
    named = next((name for name in PACKAGE_FILES if (project_dir / name).exists()), PACKAGE_FILES[0])
    done = _run(args, environ, project_dir)
    if done.returncode == 0:
        return []
    said = DbtMessages(project_dir, path_prefix, named, "Mend it; `dbt deps` says the same.").findings(
        done.stdout
    )
    errors = [finding for finding in said if finding.severity == "error"]
    unreachable = [finding for finding in errors if finding.code == "packages-unreachable"]
    return unreachable[:1] or errors or [_failure(f"dbt deps failed: {_end_of(done)}", path_prefix, named)]


def _end_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a command that said nothing in its log printed at its end, without a traceback."""
    printed = (done.stderr or done.stdout).strip()
    return (
        last_line(printed)
        if "Traceback (most recent call last)" in printed
        else " ".join(printed.splitlines()[-5:])
    )


def _read_manifest(path: Path) -> dict[str, Any]:
    import orjson

    manifest: dict[str, Any] = orjson.loads(path.read_bytes())
    for key in _MACHINE_SPECIFIC:
        manifest["metadata"].pop(key, None)
    for section in ("nodes", "sources", "macros", "docs", "exposures", "unit_tests", "functions"):
        for node in manifest.get(section, {}).values():
            node.pop("created_at", None)
            if node.get("root_path"):
                node["root_path"] = None
    manifest.pop("disabled", None)
    manifest["disabled"] = {}
    return manifest


def _failure(message: str, path_prefix: str, file: str = "dbt_project.yml") -> Finding:
    return Finding(
        code="dbt-parse",
        severity="error",
        message=message,
        file=f"{path_prefix}/{file}",
        fix="Run `dbt parse` in the product's folder to see all of dbt's output.",
    )
