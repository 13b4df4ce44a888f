"""Does a tag name the version that a release would have?

Run as `python -m tests.release v0.1.0`; exit code 1 and what to do where it does not.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def wrong_tag(tag: str, pyproject: Path = ROOT / "pyproject.toml") -> str | None:
    """Return what is wrong with a tag; None where it is `v` and the version in `pyproject.toml`."""
    version = tomllib.loads(pyproject.read_text())["project"]["version"]
    if tag == f"v{version}":
        return None
    return (
        f"the tag {tag!r} does not name version {version} of pyproject.toml, which takes the tag v{version}: "
        "change the version on main, then tag that commit"
    )


def main(arguments: list[str]) -> int:
    """Check the one argument, a tag; returns the exit code."""
    if len(arguments) != 1 or not arguments[0]:
        print("give one tag: make check-tag TAG=v0.1.0", file=sys.stderr)
        return 2
    wrong = wrong_tag(arguments[0])
    if wrong:
        print(wrong, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
