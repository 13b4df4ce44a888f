"""The examples of `--help` are commands that can be typed as they stand, in this repository."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from floe_dagster import cli
from floe_dagster.cli.main import COMMANDS, build_parser, command_named, main
from floe_dagster.compilation.sources import product_slug
from tests.conftest import ROOT


def examples() -> list[str]:
    lines = [line for name in COMMANDS for line in command_named(name).examples.splitlines()]
    # What stands further right says what the command does.
    found = [re.split(r" {2,}", line.strip())[0] for line in lines if line.strip()]
    return [line.partition(" > ")[0] for line in found]


def test_each_command_has_an_example_that_its_help_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert {example.split()[1] for example in examples()} == set(COMMANDS)
    for name in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        shown = capsys.readouterr().out
        assert ended.value.code == 0
        for example in (each for each in examples() if each.split()[1] == name):
            assert f"\n  {example}" in shown


def test_a_command_is_one_file_and_its_line() -> None:
    files = {path.stem.removesuffix("_command") for path in Path(cli.__file__).parent.glob("*_command.py")}
    assert files == set(COMMANDS) and len(COMMANDS) == len(files)


def test_help_imports_nothing_that_takes_long() -> None:
    code = (
        "import sys\n"
        "from floe_dagster.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('loaded', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split()[1:])
    assert not loaded & {"dagster", "dbt", "duckdb", "pyarrow", "pydantic", "pyiceberg", "yaml"}, loaded


@pytest.mark.parametrize("example", examples())
def test_an_example_names_what_is_there(example: str) -> None:
    program, *arguments = shlex.split(example)
    assert program == "floe-dagster"
    assert not re.search(r"[*?\[\]{}]", example), "a shell would make something else of it"
    options = build_parser().parse_args(arguments)
    for folder in getattr(options, "products", ()):
        assert (ROOT / folder / "floe.yaml").is_file(), folder
    for name in ("manifest", "write"):
        named = getattr(options, name, None)
        assert named is None or (ROOT / named).exists(), named
    if getattr(options, "table", None):
        slug, _dot, model = options.table.partition(".")
        folders = {product_slug(spec.parent): spec.parent for spec in (ROOT / "products").glob("*/floe.yaml")}
        assert any(Path(folders[slug]).rglob(f"{model}.sql"))
