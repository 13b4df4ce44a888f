"""A catalog type is known by its name in its own modules alone, so that another one is one more module."""

from __future__ import annotations

import ast
from pathlib import Path
from pkgutil import resolve_name
from typing import get_args

import pytest

import floe_dagster
from floe_dagster.definitions.resources import CatalogResource
from floe_dagster.schemas.catalog_types import CATALOG_TYPES
from floe_dagster.schemas.catalog_types.catalog_type import CatalogType

PACKAGE = Path(floe_dagster.__file__).parent
REGISTRY = PACKAGE / "schemas" / "catalog_types" / "__init__.py"
TYPES = "floe_dagster.schemas.catalog_types"
NAMED = ("opener", "resource", "server", "bootstrap")


def own_modules(kind: CatalogType) -> set[Path]:
    """Return the modules of a type: the one that describes it, and those that this one names."""
    named = [named for part in NAMED if (named := getattr(kind, part)) is not None]
    modules = [f"{TYPES}.{kind.name}", *(each.partition(":")[0] for each in named)]
    return {PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py") for module in modules}


def mentions(path: Path, name: str) -> list[str]:
    """Return where a module says a type's name, or imports what is that type's own.

    A key of a mapping is no question: `{"sql": text}` is about a language.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    keys = {id(key) for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys}
    keys |= {id(node.slice) for node in ast.walk(tree) if isinstance(node, ast.Subscript)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value == name and id(node) not in keys:
            found.append(f"{path.name}:{node.lineno}: {name!r}")
        modules: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f"{node.module}.{alias.name.lower()}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        if f"{TYPES}.{name}" in modules:
            found.append(f"{path.name}:{getattr(node, 'lineno', 0)}: imports {name}")
    return found


@pytest.mark.parametrize(
    "line",
    [
        "kind == 'polaris'",
        "CATALOG_TYPES['x'] = 'polaris'",
        "from floe_dagster.schemas.catalog_types import POLARIS",
        "from floe_dagster.schemas.catalog_types.polaris import PolarisCatalog",
        "import floe_dagster.schemas.catalog_types.polaris",
    ],
)
def test_a_name_is_seen_where_it_is_said(line: str, tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(f'"""Nothing of polaris here."""\n{line}\n')
    assert len(mentions(module, "polaris")) == 1
    assert mentions(module, "rest") == []


@pytest.mark.parametrize("kind", CATALOG_TYPES.values(), ids=list(CATALOG_TYPES))
def test_a_type_is_known_in_its_own_modules_alone(kind: CatalogType) -> None:
    own = own_modules(kind)
    assert all(path.is_file() for path in own)
    others = [path for path in PACKAGE.rglob("*.py") if path not in {REGISTRY, *own}]
    assert len(others) > 100
    assert [place for path in others for place in mentions(path, kind.name)] == []


@pytest.mark.parametrize("kind", CATALOG_TYPES.values(), ids=list(CATALOG_TYPES))
def test_what_a_type_names_is_there(kind: CatalogType) -> None:
    assert get_args(kind.plugin.model_fields["type"].annotation) == (kind.name,)
    assert issubclass(resolve_name(kind.resource), CatalogResource)
    for part in NAMED:
        named = getattr(kind, part)
        assert named is None or callable(resolve_name(named)), named
    # An engine outside of this process reaches it over the network only.
    assert kind.server is not None or not kind.is_shared
