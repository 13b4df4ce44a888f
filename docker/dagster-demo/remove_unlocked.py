"""Removes what the base image has installed and the lock does not name: `python remove_unlocked.py requirements.txt`.

The published image carries Celery, Azure and Google Cloud with all that they need. Nothing here uses them, and their pins
contradict those of the lock one day. After this, and after the lock is installed, the environment is the lock, whatever the
base was.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

KEPT = frozenset({"pip", "setuptools", "wheel"})
REQUIREMENT = re.compile(r"(?m)^([A-Za-z0-9._-]+)==")


def main(requirements: Path) -> int:
    """Uninstall every distribution that `requirements` does not name; returns pip's exit code."""
    locked = {normalised(name) for name in REQUIREMENT.findall(requirements.read_text())}
    installed = {normalised(distribution.metadata["Name"]) for distribution in metadata.distributions()}
    surplus = sorted(installed - locked - KEPT)
    if not surplus:
        return 0
    print(f"not in {requirements}, so removed: {', '.join(surplus)}")
    command = [
        sys.executable,
        "-m",
        "pip",
        "uninstall",
        "--quiet",
        "--yes",
        "--root-user-action=ignore",
        *surplus,
    ]
    return subprocess.run(command).returncode


def normalised(name: str) -> str:
    """Return a distribution's name in the one form in which names are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
