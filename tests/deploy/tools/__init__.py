"""Programs that tests of the deployment need, built from their Go modules once and kept under `.floe/tools`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

from tests.conftest import ROOT

FOLDER = ROOT / ".floe" / "tools" / "go"
INSTALL = "apt-get install golang, or https://go.dev/dl (1.24 or newer)"


def go_tool(module: str, version: str) -> Path:
    """Build a command of a Go module, where it is not built yet, and return its path.

    Args:
        module: Path of the command's package, for example `github.com/rhysd/actionlint/cmd/actionlint`.
        version: Of the module, for example `v1.7.12`; never `latest`, so that all see the same findings.

    Raises:
        AssertionError: There is no Go, or the build fails; the message says why.
    """
    parts = [part for part in module.split("/") if part != "..."]
    # A last part such as v2 is the major version of the module, not the command.
    name = parts[-1] if not parts[-1].lstrip("v").isdigit() else parts[-2]
    folder = FOLDER / f"{name}-{version}"
    program = folder / name
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / f"{name}-{version}.lock"):
        if program.exists():
            return program
        go = shutil.which("go")
        assert go, f"go is missing, it builds {name}: {INSTALL}"
        done = subprocess.run(
            [go, "install", f"{module}@{version}"],
            env={**os.environ, "GOBIN": str(folder), "GOFLAGS": "-trimpath"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{module}@{version} does not build:\n{done.stderr}"
    return program
