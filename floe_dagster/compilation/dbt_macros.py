"""The macros that dbt brings itself, parsed once for all commands of a process: a small project has little else to parse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from jinja2 import Environment
from jinja2.nodes import Template


def parse_dbts_own_macros(engines: list[str]) -> int:
    """Parse them, and have every later parse of the same text, here and in forks, take the tree that is there.

    What Jinja makes of a text depends on the text and on its environment's extensions alone. dbt reads such a tree and changes
    nothing in it: its own tests share them (`dbt_common.tests.enable_test_caching`), with caches that would also hold what is a
    project's.

    Args:
        engines: Names of adapters whose plugins are loaded.

    Returns:
        How many macros were parsed.
    """
    trees: dict[tuple[Any, ...], Template] = {}
    plain = Environment.parse

    def parse(
        self: Environment, source: str, name: str | None = None, filename: str | None = None
    ) -> Template:
        tree = trees.get(_key(self, source)) if name is None and filename is None else None
        return tree if tree is not None else plain(self, source, name, filename)

    # dbt makes an environment for each text, of a class of its own.
    from dbt_common.clients.jinja import get_environment

    environment = get_environment()
    for text in _macros(engines):
        with suppress(Exception):  # dbt will say what is wrong with it
            trees[_key(environment, text)] = plain(environment, text)
    Environment.parse = parse  # type: ignore[method-assign]
    return len(trees)


def _key(environment: Environment, source: str) -> tuple[Any, ...]:
    return type(environment), tuple(environment.extensions), source


def _macros(engines: list[str]) -> Iterator[str]:
    """Yield the text of each block as dbt has Jinja parse it."""
    from dbt.adapters.factory import get_include_paths
    from dbt_common.clients.jinja import extract_toplevel_blocks

    kinds = {"macro", "materialization", "test", "data_test"}
    folders = dict.fromkeys(folder for engine in engines for folder in get_include_paths(engine))
    for folder in folders:
        for file in sorted(folder.rglob("*.sql")):
            with suppress(Exception):  # dbt will say what is wrong with it
                blocks = extract_toplevel_blocks(
                    file.read_text().strip(), allowed_blocks=kinds, collect_raw_data=False
                )
                yield from (text for block in blocks if (text := getattr(block, "full_block", None)))
