"""What `flags:` of a dbt project would decide of an invocation, and how dbt is told that it does not.

dbt takes an option from its command line, else from its environment, else from `flags:` in `dbt_project.yml`. The command line
is ours, the environment as well (`dbt_environment`). So for each option that a project sets, dbt is given its own default. What
has no option, such as `require_…`, says how the project is read: it holds, for the compilation and for each run alike.

Sources: `Flags` in `dbt/cli/flags.py`, `ProjectFlags` in `dbt/contracts/project.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from floe_dagster.findings import Finding

PROJECT_FILE = "dbt_project.yml"
DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "cache_selected_only": ("--no-cache-selected-only",),
    "debug": ("--no-debug",),
    "log_format_file": ("--log-format-file", "debug"),
    "log_level": ("--log-level", "info"),
    "partial_parse": ("--partial-parse",),
    "populate_cache": ("--populate-cache",),
    "printer_width": ("--printer-width", "80"),
    "static_parser": ("--static-parser",),
    "use_colors_file": ("--use-colors-file",),
    "use_experimental_parser": ("--no-use-experimental-parser",),
    "warn_error_options": ("--warn-error-options", "{}"),
}
"""Arguments that give an option dbt's default, by its name in `flags:`; in the place of global options, before the command."""
VARIABLES: Mapping[str, tuple[str, str]] = {"warn_error": ("DBT_WARN_ERROR", "false")}
"""The same, by a variable of dbt's environment, where no argument does it. Set at once with `warn_error_options`, dbt refuses."""
SET_ANYWAY = frozenset(
    {
        *("fail_fast", "indirect_selection", "log_format", "log_level_file", "send_anonymous_usage_stats"),
        *("use_colors", "version_check", "write_json"),
    }
)
"""Options that every invocation sets which the option could concern, whatever the project says."""
DECIDING = frozenset(
    {"fail_fast", "indirect_selection", "warn_error", "warn_error_options", "write_json", "version_check"}
)
"""Those that would decide what is built, or what a test means: a project that sets them is told that they do not."""


@dataclass(frozen=True, slots=True)
class Overriding:
    """By what nothing of a project's `flags:` counts.

    Args:
        options: Global options of dbt, which stand before the command.
        environment: Variables.
    """

    options: tuple[str, ...]
    environment: Mapping[str, str]


def overriding(folder: Path, besides: frozenset[str] = frozenset()) -> Overriding:
    """Return what dbt is told so that nothing of a project's `flags:` counts.

    Args:
        folder: With `dbt_project.yml`.
        besides: Names of options that the command sets itself.
    """
    stated = _stated(_text(folder)).keys() - besides
    return Overriding(
        tuple(word for name, words in DEFAULTS.items() if name in stated for word in words),
        dict(VARIABLES[name] for name in sorted(stated & VARIABLES.keys())),
    )


def check_flags(folder: Path, shown: str) -> list[Finding]:
    """Return a warning for each flag of a project that would decide something, with its line.

    Args:
        folder: With `dbt_project.yml`.
        shown: Display path of the product's folder.
    """
    text = _text(folder)
    return [
        Finding(
            code="dbt-flag-ignored",
            severity="warning",
            message=f"{name} in `flags:` has no effect: what a run builds, and what its tests mean, is not the project's to say",
            file=f"{shown}/{PROJECT_FILE}",
            line=_line(text, name),
            field=f"flags.{name}",
            found=str(value),
            allowed="flags that say how dbt reads the project, such as require_…",
            fix="Take it out.",
        )
        for name, value in _stated(text).items()
        if name in DECIDING
    ]


def _text(folder: Path) -> str:
    try:
        return (folder / PROJECT_FILE).read_text("utf-8", "replace")
    except OSError:
        return ""


def _stated(text: str) -> Mapping[str, Any]:
    try:
        flags = (yaml.safe_load(text) or {}).get("flags")
    except (yaml.YAMLError, AttributeError):
        # dbt says what is wrong with the file.
        return {}
    return {str(name): value for name, value in flags.items()} if isinstance(flags, dict) else {}


def _line(text: str, name: str) -> int | None:
    lines = text.splitlines()
    begin = next((n for n, line in enumerate(lines) if line.startswith("flags")), 0)
    said = re.compile(rf"\b{name}\b")
    return next((n for n, line in enumerate(lines[begin:], begin + 1) if said.search(line)), None)
