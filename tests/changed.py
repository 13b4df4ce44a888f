"""Runs the unit tests of what changed since the last commit: `python -m tests.changed [ARGUMENTS OF PYTEST]`.

A test file belongs to a module where it imports it by name. What a change breaks elsewhere, `make test` finds.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("tests/unit", "tests/contract")
NO_TESTS = 5
"""Exit code of pytest where it was given nothing to run."""


def changed_files(root: Path = ROOT) -> set[str]:
    """Return the files that differ from the last commit, and new ones, relative to the root."""
    commands = (
        ["git", "diff", "--name-only", "--no-renames", "HEAD"],
        ["git", "ls-files", "--others", "--exclude-standard"],
    )
    outputs = (
        subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
        for command in commands
    )
    return {line for output in outputs for line in output.splitlines()}


def module_of(file: str) -> str | None:
    """Return the name of the module that a file holds; None where it holds none."""
    path = PurePosixPath(file)
    if path.suffix != ".py":
        return None
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str) -> set[str]:
    """Return the modules that a source imports by name, anywhere in it; `from a import b` may mean `a` and `a.b`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def files_that_test(changed: Iterable[str], root: Path = ROOT) -> list[str]:
    """Return the test files that changed or import something that did, relative to the root.

    Args:
        changed: Files, relative to the root.
        root: Of the repository.
    """
    changed = set(changed)
    modules = {module for file in changed if (module := module_of(file))}
    files = sorted(file for folder in FOLDERS for file in (root / folder).rglob("test_*.py"))
    names = {file.relative_to(root).as_posix(): file for file in files}
    return [
        name
        for name, file in names.items()
        if name in changed or not modules.isdisjoint(imported(file.read_text()))
    ]


def main(arguments: list[str]) -> int:
    """Run them; returns the exit code."""
    files = files_that_test(changed_files())
    if not files:
        print("no unit test belongs to what changed since the last commit")
        return 0
    code = subprocess.run([sys.executable, "-m", "pytest", "-q", *arguments, *files], cwd=ROOT).returncode
    return 0 if code == NO_TESTS else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
