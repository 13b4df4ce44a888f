"""Every attribute of an object is there from its beginning: nobody has to ask whether it is there yet."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import floe_dagster

PACKAGE = Path(floe_dagster.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "deploy").rglob("*.py")])


def born_late(tree: ast.AST) -> Iterator[str]:
    """Yield attributes that a class sets in a method, and neither in `__init__` nor in its body; and guesses whether one is there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from _of_class(node)
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("getattr", "hasattr")
            and ast.unparse(node.args[0]) == "self"
            and isinstance(node.args[1], ast.Constant)
        ):
            yield f"{node.lineno}: {ast.unparse(node)}"


def _of_class(owner: ast.ClassDef) -> Iterator[str]:
    methods = [node for node in owner.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    born = {name for node in owner.body if not isinstance(node, ast.FunctionDef) for name in _names(node)}
    born |= {
        name for method in methods if method.name in ("__init__", "__new__") for name in _attributes(method)
    }
    # A property with a setter.
    born |= {method.name for method in methods if method.decorator_list}
    for method in methods:
        for name, line in _attributes(method).items():
            if name not in born:
                yield f"{line}: {owner.name}.{name}"


def _names(node: ast.AST) -> set[str]:
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def _attributes(method: ast.AST) -> dict[str, int]:
    return {
        node.attr: node.lineno
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


@pytest.mark.parametrize(
    ("body", "late"),
    [
        ("def __init__(self):\n  self.a = 1\n def run(self):\n  self.a = 2", 0),
        ("a: int = 0\n def run(self):\n  self.a = 2", 0),
        ("def run(self):\n  self.a = 2", 1),
        ("def run(self):\n  self.a, (self.b, *self.c) = x", 3),
        ("def run(self):\n  with x as self.a: pass", 1),
        ("def run(self):\n  return getattr(self, 'a', None)", 1),
        ("def run(self):\n  return hasattr(self, 'a')", 1),
        ("def run(self, name):\n  return getattr(self, name)", 0),
    ],
)
def test_what_is_born_late_is_seen(body: str, late: int) -> None:
    assert len(list(born_late(ast.parse(f"class A:\n {body}")))) == late


def test_no_attribute_is_born_late() -> None:
    assert len(MODULES) > 200
    found = {
        f"{path.relative_to(ROOT)}:{place}"
        for path in MODULES
        for place in born_late(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == set()
