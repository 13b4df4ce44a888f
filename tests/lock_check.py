"""Do the hashed requirement files fit `pyproject.toml`? Newer releases of a package do not matter.

Run as `python -m tests.lock_check`; exit code 1 and a diff where they do not fit.
"""

from __future__ import annotations

import difflib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "pyproject.toml"
IMAGE = "docker/dagster-demo/requirements-build"
BASE = "tests/deploy/image/official"
SBOM = "deploy/release/requirements-sbom"
RUNNING = [PROJECT, "--extra", "cluster", "--extra", "trino"]
FILES = {
    "requirements.txt": [PROJECT],
    "requirements-image.txt": [*RUNNING, "--constraint", "requirements.txt"],
    "requirements-dev.txt": [*RUNNING, "--extra", "dev", "--constraint", "requirements-image.txt"],
    "requirements-plus.txt": [*RUNNING, "--extra", "plus", "--constraint", "requirements-image.txt"],
    f"{IMAGE}.txt": [f"{IMAGE}.in"],
    f"{BASE}.txt": [f"{BASE}.in"],
    f"{SBOM}.txt": [f"{SBOM}.in"],
}
"""What `make lock` resolves each requirement file from, relative to the repository's root."""


def stale_lines(name: str, pyproject: Path = ROOT / PROJECT) -> list[str]:
    """Return the lines in which a fresh resolution, that prefers the locked versions, differs."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "requirements.txt"
        shutil.copy(ROOT / name, target)
        command = [
            *_uv(),
            *("pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-emit-index-url"),
            *("--no-emit-find-links", "--no-header", "--no-annotate", "--python-version", "3.11"),
            *(str(pyproject) if argument == PROJECT else argument for argument in FILES[name]),
            *("-o", str(target)),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            return [done.stderr.strip()]
        locked = [line for line in (ROOT / name).read_text().splitlines() if "--hash" not in line]
        fresh = [line for line in target.read_text().splitlines() if "--hash" not in line]
    return list(difflib.unified_diff(locked, fresh, name, f"{name} (fresh)", lineterm="", n=0))


def _uv() -> list[str]:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if not found:
        raise SystemExit("uv is missing; run `make setup`")
    return [found]


def main() -> int:
    """Check every file; returns the exit code."""
    stale = [line for name in FILES for line in stale_lines(name)]
    if stale:
        print("\n".join([*stale, "", "the lock is stale: run `make lock` and commit the result"]))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
