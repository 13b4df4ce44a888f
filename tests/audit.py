"""Secrets in the repository, and known vulnerabilities of what is installed.

    python -m tests.audit

Secrets: detect-secrets over every tracked file; what it takes for one and is none stands in `.secrets.baseline`.
Dependencies: the installed versions fit each other (`pip check`), and pip-audit knows no vulnerability of the locked
ones. Where the package index has no vulnerability data (a mirror, say), that is said and counts as not looked at.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def main() -> int:
    """Run both; 0 where nothing was found."""
    failures = [name for name, look in (("secrets", secrets), ("dependencies", dependencies)) if not look()]
    print(f"audit: {', '.join(failures)} failed" if failures else "audit: nothing found")
    return 1 if failures else 0


def secrets() -> bool:
    """Scan the tracked files."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    files = [name for name in tracked.split("\0") if name and not name.startswith("requirements")]
    done = subprocess.run(
        [str(BIN / "detect-secrets-hook"), "--baseline", ".secrets.baseline", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    print(
        f"secrets: {len(files)} files"
        + (f"\n{done.stdout}{done.stderr}" if done.returncode else ", none found")
    )
    return done.returncode == 0


def dependencies() -> bool:
    """Look at what is installed and locked."""
    fits = subprocess.run(
        [str(BIN / "uv"), "pip", "check", "--python", sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    if fits.returncode:
        print(fits.stdout + fits.stderr)
        return False
    found = subprocess.run(
        [str(BIN / "pip-audit"), "-r", "requirements.txt", "--require-hashes", "--disable-pip", "-f", "json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        entries = json.loads(found.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"dependencies: pip-audit cannot look: {found.stderr.strip()[-500:]}")
        print("dependencies: VULNERABILITIES NOT LOOKED AT: the vulnerability service does not answer")
        return True
    skipped = [entry["name"] for entry in entries if entry.get("skip_reason")]
    vulnerable = {entry["name"]: [v["id"] for v in entry["vulns"]] for entry in entries if entry.get("vulns")}
    for name, identifiers in vulnerable.items():
        print(f"dependencies: {name} has {', '.join(identifiers)}; run `make lock`, or pin a fixed version")
    if skipped:
        print(
            f"dependencies: VULNERABILITIES OF {len(skipped)} OF {len(entries)} PACKAGES NOT LOOKED AT: this package "
            "index has no data about them; run `make audit` where pypi.org is reachable"
        )
    else:
        print(f"dependencies: {len(entries)} packages, {len(vulnerable)} with known vulnerabilities")
    return not vulnerable


if __name__ == "__main__":
    raise SystemExit(main())
