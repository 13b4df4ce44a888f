"""What `floe_dagster` exports is there, is cheap to import, and does what its examples say."""

from __future__ import annotations

import ast
import doctest
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest

import floe_dagster
from floe_dagster import FloeError
from floe_dagster.home import FloeHome
from tests.conftest import ROOT

PACKAGE = Path(floe_dagster.__file__).parent


def error_classes() -> list[str]:
    """Return every class of this package whose name says that it is an error."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith(("Error", "Exception")):
                found.append(f"{module}:{node.name}")
    return sorted(found)


@pytest.mark.parametrize("name", floe_dagster.__all__)
def test_each_name_is_there_and_is_named_on_the_page(name: str) -> None:
    assert getattr(floe_dagster, name).__name__ == name
    assert f"`{name}`" in (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def test_a_name_that_is_not_there_is_told_as_by_any_module() -> None:
    assert set(floe_dagster.__all__) <= set(dir(floe_dagster))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = floe_dagster.nothing


def test_the_import_is_cheap() -> None:
    code = "import sys, floe_dagster; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"dagster", "dbt", "duckdb", "pydantic", "pyiceberg", "yaml"}


@pytest.mark.parametrize("name", error_classes())
def test_every_error_has_one_root(name: str) -> None:
    assert issubclass(resolve_name(name), FloeError)


def test_the_examples_do_what_they_say(home: FloeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("FLOE_HOME", str(home.path))
    assert doctest.testmod(floe_dagster) == (0, 3)
    failed, tried = doctest.testfile(str(ROOT / "docs" / "python.md"), module_relative=False)
    assert failed == 0 and tried > 6
