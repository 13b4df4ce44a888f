"""`flags:` of a project decide nothing of an invocation, held against dbt's own reading of them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from dbt.cli.flags import Flags
from dbt.cli.main import cli
from dbt.contracts.project import ProjectFlags

from floe_dagster.compilation.dbt_flags import (
    DECIDING,
    DEFAULTS,
    SET_ANYWAY,
    VARIABLES,
    Overriding,
    check_flags,
    overriding,
)

OTHERS: dict[str, Any] = {
    "cache_selected_only": True,
    "debug": True,
    "fail_fast": True,
    "indirect_selection": "empty",
    "log_format": "text",
    "log_format_file": "json",
    "log_level": "none",
    "log_level_file": "none",
    "partial_parse": False,
    "populate_cache": False,
    "printer_width": 20,
    "send_anonymous_usage_stats": True,
    "static_parser": False,
    "use_colors": True,
    "use_colors_file": False,
    "use_experimental_parser": True,
    "version_check": False,
    "warn_error": True,
    "warn_error_options": {"error": "all"},
    "write_json": False,
}
"""Of each option another value than dbt's default."""


def options() -> set[str]:
    """The names in `flags:` that are options of dbt's command line, too: those that decide of one invocation."""
    build = cli.commands["build"]
    known = {param.name for command in (cli, build) for param in command.params}
    return {each.name for each in fields(ProjectFlags)} & {str(name) for name in known}


def project(folder: Path, **flags: Any) -> Path:
    (folder / "dbt_project.yml").write_text(yaml.safe_dump({"name": "shop", "flags": flags}))
    return folder


def test_every_option_that_a_project_may_set_is_known() -> None:
    assert options() == OTHERS.keys() == DEFAULTS.keys() | VARIABLES.keys() | SET_ANYWAY
    assert OTHERS.keys() >= DECIDING


def seen(told: Overriding, flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What dbt makes of what it is told, and of a project's flags."""
    with monkeypatch.context() as patch:
        patch.setattr("sys.argv", ["dbt", *told.options])
        for name, value in told.environment.items():
            patch.setenv(name, value)
        context = cli.make_context("cli", [*told.options, "build"])
        build = cli.commands["build"].make_context("build", ["--profiles-dir", "."], parent=context)
        with click.Context(cli), build:
            found = Flags(build, ProjectFlags(**flags))
    return {name: str(getattr(found, name.upper()) or None) for name in (*DEFAULTS, *VARIABLES)}


NOTHING = Overriding((), {})


@pytest.mark.parametrize("name", sorted({*DEFAULTS, *VARIABLES}))
def test_an_option_of_a_project_has_no_effect(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = {name: OTHERS[name]}
    plain = seen(NOTHING, {}, monkeypatch)
    assert seen(NOTHING, flags, monkeypatch)[name] != plain[name], "it has an effect by itself"
    assert seen(overriding(project(tmp_path, **flags)), flags, monkeypatch) == plain


def test_what_is_not_stated_is_left_alone(tmp_path: Path) -> None:
    assert overriding(tmp_path) == NOTHING and not check_flags(tmp_path, "shop")
    for text in ("name: shop\n", "flags: 3\n", "flags: {a: [}\n", "- 1\n", "flags: {require_x: true}\n"):
        (tmp_path / "dbt_project.yml").write_text(text)
        assert overriding(tmp_path) == NOTHING and not check_flags(tmp_path, "shop")


def test_what_would_decide_something_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "dbt_project.yml").write_text(
        "name: shop\nvars: {fail_fast: 1}\nflags:\n  use_colors: true\n  fail_fast: true\n  warn_error: true\n"
    )
    found = [(each.field, each.file, each.line, each.severity) for each in check_flags(tmp_path, "shop")]
    assert found == [
        ("flags.fail_fast", "shop/dbt_project.yml", 5, "warning"),
        ("flags.warn_error", "shop/dbt_project.yml", 6, "warning"),
    ]
