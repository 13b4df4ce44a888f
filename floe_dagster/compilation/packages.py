"""The dbt packages that a project asks for: what is wrong with the list, and whether what it asks for is installed.

`dbt deps` installs them, for which it has to reach the hub or a Git host. Where somebody has done that before, and
`package-lock.yml` says with what result, the installed packages are sources of the product like its own files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from floe_dagster.compilation.documents import DocumentPath, dotted, read_document
from floe_dagster.findings import Finding, InputError
from floe_dagster.named_manifests import lenient_yaml

PACKAGE_FILES = ("packages.yml", "dependencies.yml")
LOCK_FILE = "package-lock.yml"
INSTALL_PATH = "dbt_packages"
KINDS = ("package", "git", "local", "tarball", "private")
"""What an entry may ask for (https://docs.getdbt.com/docs/build/packages)."""


def install_path(project_dir: Path) -> str:
    """Return the folder in which dbt installs packages, relative to the project unless it is absolute."""
    named = lenient_yaml(project_dir / "dbt_project.yml").get("packages-install-path")
    return named if isinstance(named, str) and "{{" not in named else INSTALL_PATH


def installed_packages(project_dir: Path) -> list[Path]:
    """Return the folders of the packages that are installed; none where no lock file says what they are."""
    named = install_path(project_dir)
    # Of what lies outside of the project nothing is a source.
    if not (project_dir / LOCK_FILE).is_file() or os.path.isabs(named) or ".." in Path(named).parts:
        return []
    try:
        found = sorted((project_dir / named).iterdir())
    except OSError:
        return []
    return [folder for folder in found if (folder / "dbt_project.yml").is_file()]


def is_installed(project_dir: Path) -> bool:
    """Tell whether all that the project asks for is locked, and all that is locked is installed."""
    asked = [entry for name in PACKAGE_FILES for entry in _entries(project_dir / name)]
    locked = [*_entries(project_dir / LOCK_FILE)]
    projects = {
        str(lenient_yaml(folder / "dbt_project.yml").get("name"))
        for folder in installed_packages(project_dir)
    }
    # dbt before 1.8 wrote no names of projects.
    there = [entry.get("name") in projects for entry in locked if entry.get("name")]
    is_there = all(there) if there else len(projects) >= len(locked)
    return bool(locked) and is_there and all(_is_locked(entry, locked) for entry in asked)


def check_packages(project_dir: Path, shown: str) -> list[Finding]:
    """Find entries that dbt cannot install, which it says without a place, or with a traceback.

    Args:
        project_dir: Folder of the staged project.
        shown: Display path of the product's folder.
    """
    findings: list[Finding] = []
    for name in PACKAGE_FILES:
        path = project_dir / name
        if not path.is_file():
            continue
        try:
            document = read_document(path, root=project_dir)
        except InputError as error:
            codes = {finding.code for finding in error.findings}
            # Of what is empty or has templates dbt says what it thinks.
            if "empty-document" not in codes and "{{" not in path.read_text(errors="replace"):
                findings += [replace(finding, file=f"{shown}/{name}") for finding in error.findings]
            continue
        packages = document.data.get("packages")
        for number, entry in enumerate(packages if isinstance(packages, list) else ()):
            for problem, field, fix in _problems(entry, project_dir):
                at: DocumentPath = ("packages", number, *([field] if field else []))
                line, column = document.position(at)
                findings.append(
                    Finding(
                        code="package-entry",
                        severity="error",
                        message=problem,
                        file=f"{shown}/{name}",
                        line=line,
                        column=column,
                        field=dotted(at),
                        allowed="package with version, git with revision, local, tarball with name, or private",
                        fix=fix,
                    )
                )
    return findings


def _problems(entry: Any, project_dir: Path) -> Iterator[tuple[str, str, str]]:
    if not isinstance(entry, dict) or not any(kind in entry for kind in KINDS):
        yield (
            "an entry of packages names no package",
            "",
            "Write for instance `- package: dbt-labs/dbt_utils`.",
        )
        return
    if "package" in entry and entry.get("version") in (None, "", []):
        yield (
            f"package {entry['package']} has no version",
            "",
            'Add `version: "1.3.0"`, or a range such as `[">=1.1.0", "<2.0.0"]`.',
        )
    local = entry.get("local")
    if (
        isinstance(local, str)
        and "{{" not in local
        and not (project_dir / local / "dbt_project.yml").is_file()
    ):
        yield (
            f"there is no dbt project in {local}",
            "local",
            "Mend the path, which is relative to the product's folder.",
        )


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    packages = lenient_yaml(path).get("packages")
    for entry in packages if isinstance(packages, list) else ():
        if isinstance(entry, dict):
            yield entry


def _is_locked(entry: Mapping[str, Any], locked: list[dict[str, Any]]) -> bool:
    for kind in KINDS:
        if kind in entry:
            found = [other for other in locked if other.get(kind) == entry[kind]]
            # A range is held by whoever resolved it; what names one version has to be that one. Of a Git tag the lock has the
            # commit, which only the host can compare.
            wanted = entry.get("version")
            is_exact = kind == "package" and isinstance(wanted, str) and wanted.strip()[:1].isdigit()
            return any(not is_exact or other.get("version") == wanted for other in found)
    return False
