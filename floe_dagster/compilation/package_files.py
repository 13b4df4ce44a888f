"""The files that policies read: those of the product, of its manifests, and of the packages that dbt has installed for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from floe_dagster.compilation.packages import PACKAGE_FILES, install_path
from floe_dagster.compilation.sources import DBT_SUFFIXES, PROJECT_FILE, SourceState
from floe_dagster.home import display_path
from floe_dagster.named_manifests import SPEC_FILE, lenient_yaml
from floe_dagster.policies.model import SourceText


def package_folders(product_dir: Path, staged: Path) -> dict[str, str]:
    """Return where each dbt package lies below the product's folder, by its name.

    Args:
        product_dir: The product's folder, where local packages lie.
        staged: The copy of the dbt project, where dbt has installed the others.
    """
    found = {}
    for folder in sorted((staged / install_path(staged)).glob("*")):
        if name := _name(folder):
            found[name] = _below(staged, folder)
    for file in PACKAGE_FILES:
        packages = lenient_yaml(product_dir / file).get("packages")
        for package in packages if isinstance(packages, list) else ():
            local = package.get("local") if isinstance(package, dict) else None
            if isinstance(local, str) and (name := _name(product_dir / local)):
                found[name] = os.path.normpath(local).replace(os.sep, "/")
    return found


def governed_files(state: SourceState, staged: Path, root: Path, shown: str) -> list[SourceText]:
    """Return every file that the digest covers, and those of installed packages.

    Args:
        state: Of the sources.
        staged: The copy of the dbt project.
        root: Of the repository, for display.
        shown: Display path of the product's folder.
    """
    files = [
        SourceText(file.name, display_path(file.path, root), _reader(file.path), file.name == SPEC_FILE)
        for file in state.files
    ]
    files += [
        SourceText(file.name, display_path(file.path, root), _reader(file.path), is_document=True)
        for file in state.manifests
    ]
    # Packages that were installed before the compilation are sources already.
    known = {file.name for file in state.files}
    for path in _files_of_packages(staged):
        name = _below(staged, path)
        if name not in known:
            files.append(SourceText(name, f"{shown}/{name}", _reader(path)))
    return files


def _files_of_packages(staged: Path) -> Iterator[Path]:
    for folder in sorted((staged / install_path(staged)).glob("*")):
        # A link leads to a local package, which is part of the sources.
        if folder.is_symlink() or not folder.is_dir():
            continue
        for below, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from (
                Path(below, name) for name in sorted(names) if Path(name).suffix.lower() in DBT_SUFFIXES
            )


def _below(staged: Path, path: Path) -> str:
    # A project may have its packages outside, which leads there by `..`.
    return os.path.relpath(path, staged).replace(os.sep, "/")


def _name(folder: Path) -> str | None:
    try:
        project: Any = yaml.safe_load((folder / PROJECT_FILE).read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    name = project.get("name") if isinstance(project, dict) else None
    return name if isinstance(name, str) else None


def _reader(path: Path) -> Any:
    def read() -> bytes | None:
        try:
            return path.read_bytes()
        except OSError:
            return None

    return read
