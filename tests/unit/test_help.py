"""The examples of `--help` are commands that can be typed as they stand, in this repository."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from floe_dagster.cli.main import build_parser
from floe_dagster.compilation.sources import product_slug
from tests.conftest import ROOT


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers(child)


def examples() -> list[str]:
    lines = [line for each in parsers(build_parser()) for line in (each.epilog or "").splitlines()]
    # What stands further right says what the command does.
    found = [
        re.split(r" {2,}", line.strip())[0] for line in lines if line.strip().startswith("floe-dagster ")
    ]
    return [line.partition(" > ")[0] for line in found]


def test_each_command_has_an_example() -> None:
    shown = {example.split()[1] for example in examples()}
    (commands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert shown == set(commands.choices)


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
