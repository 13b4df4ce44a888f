"""An engine is known by its name in its own modules alone, so that another one is one more module."""

from __future__ import annotations

import ast
from pathlib import Path
from pkgutil import resolve_name
from typing import get_args

import pytest

import floe_dagster
from floe_dagster.schemas.compute import ENGINES
from floe_dagster.schemas.compute.engine import Engine

PACKAGE = Path(floe_dagster.__file__).parent
REGISTRY = PACKAGE / "schemas" / "compute" / "__init__.py"
FOLDERS = PACKAGE / "home.py"
"""Names the folder of DuckDB files, which are DuckDB's whatever builds in them."""


def mentions(path: Path, name: str) -> list[str]:
    """Return where a module says an engine's name, or imports what is that engine's own."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and node.value == name:
            found.append(f"{path.name}:{node.lineno}: {name!r}")
        modules: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            # The engine itself, by its name; not what only has it in its name, such as a library's setting.
            named = [f"{node.module}.{alias.name}" for alias in node.names if alias.name.lower() == name]
            modules = named or [node.module]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            first, *parts = module.split(".")
            if first == PACKAGE.name and any(part.lower().split("_")[0] == name for part in parts):
                found.append(f"{path.name}:{getattr(node, 'lineno', 0)}: {module}")
    return found


@pytest.mark.parametrize(
    "line",
    [
        "kind == 'trino'",
        "from floe_dagster.schemas.compute import TRINO",
        "from floe_dagster.platform import trino",
        "from floe_dagster.engines.trino.access import TrinoAccess",
        "import floe_dagster.platform.trino",
    ],
)
def test_a_name_is_seen_where_it_is_said(line: str, tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(f'"""Nothing of trino here."""\n{line}\n')
    assert len(mentions(module, "trino")) == 1
    assert mentions(module, "duckdb") == []


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_is_known_in_its_own_modules_alone(name: str) -> None:
    others = [
        path
        for path in PACKAGE.rglob("*.py")
        if path not in (REGISTRY, FOLDERS)
        and not any(part.split("_")[0] == name for part in path.relative_to(PACKAGE).with_suffix("").parts)
    ]
    assert len(others) > 100
    assert [place for path in others for place in mentions(path, name)] == []


@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
def test_what_an_engine_names_is_there(engine: Engine) -> None:
    assert isinstance(resolve_name(engine.workspace), type)
    assert engine.check is None or callable(resolve_name(engine.check))
    assert get_args(engine.plugin.model_fields["type"].annotation) == (engine.name,)
