"""Brings what an engine needs into the dbt project that is compiled; the product's own files stay as they are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from floe_dagster.compilation.sources import DBT_PATHS, PROJECT_FILE
from floe_dagster.findings import Finding
from floe_dagster.schemas.compute import ENGINES
from floe_dagster.schemas.compute.engine import ProjectOverlay
from floe_dagster.schemas.product import ProductSpec

FOLDER = "floe_macros"
_MACRO = re.compile(r"{%-?\s*macro\s+(\w+)\s*\(")
_COMMENT = re.compile(r"{#.*?#}", re.DOTALL)


def apply_overlay(project_dir: Path, engine: str, spec: ProductSpec, shown: str) -> list[Finding]:
    """Write an engine's settings and macros into a copy of the product's dbt project.

    Other engines may work with the same copy: macros are of one engine's adapter, settings mean nothing to the others.
    Its packages are installed before: settings hold for them, too.

    Args:
        project_dir: The copy; its `dbt_project.yml` can be read.
        engine: Its name.
        spec: The product spec: layouts of tables.
        shown: Display path of the product's folder.

    Returns:
        What of the project stands in the way; then nothing was written.
    """
    overlay = ENGINES[engine].overlay
    if overlay is None:
        return []
    layouts: dict[str, dict[str, Any]] = {}
    for transform in spec.transforms or ():
        table = transform.table
        layout = {"partition_by": table.partition_by, "sort_by": table.sort_by} if table else {}
        layouts[transform.name] = {name: fields for name, fields in layout.items() if fields}
    wanted = overlay(layouts)
    path = project_dir / PROJECT_FILE
    project = yaml.safe_load(path.read_text("utf-8"))
    for section, configs in wanted.configs.items():
        if section == "seeds" and not _has_seeds(project_dir, project):
            # dbt would warn of a setting that nobody here wrote.
            continue
        project[section] = {**configs, **(project.get(section) or {})}
    paths = [str(path) for path in project.get("macro-paths") or DBT_PATHS["macro-paths"]]
    if clashes := list(_clashes(project_dir, paths, wanted, engine, shown)):
        return clashes
    _find_ours_first(project)
    project["macro-paths"] = paths if FOLDER in paths else [*paths, FOLDER]
    path.write_text(yaml.safe_dump(project, sort_keys=False, allow_unicode=True), "utf-8")
    folder = project_dir / FOLDER
    folder.mkdir(exist_ok=True)
    (folder / f"{engine}.sql").write_text(wanted.macros, "utf-8")
    return []


def _find_ours_first(project: dict[str, Any]) -> None:
    """Where the project says in which packages dbt's macros are looked for, look into the project before."""
    for entry in project.get("dispatch") or ():
        if isinstance(entry, dict) and entry.get("macro_namespace") == "dbt":
            order = [name for name in entry.get("search_order") or ("dbt",) if name != project["name"]]
            entry["search_order"] = [project["name"], *order]


def _clashes(
    project_dir: Path, paths: Iterable[str], wanted: ProjectOverlay, engine: str, shown: str
) -> Iterator[Finding]:
    """Yield a finding for each macro of the project that has the name of one of the engine's.

    dbt would name a file that the project does not have.
    """
    own = {*_MACRO.findall(wanted.macros), *wanted.reserved}
    for file, line, name in _macros(project_dir, paths):
        if name in own:
            yield Finding(
                severity="error",
                code="reserved-macro",
                file=os.path.normpath(f"{shown}/{os.path.relpath(file, project_dir)}"),
                line=line,
                field="macro",
                message=f"a product on {engine!r} cannot have a macro {name!r}: its tables are written by one of that "
                "name, so that what is not tested stays unseen",
                found=name,
                allowed=f"any name but {', '.join(sorted(own))}",
                fix="Rename it, or take it out of the project.",
            )


def _macros(project_dir: Path, paths: Iterable[str]) -> Iterator[tuple[Path, int, str]]:
    """Yield file, line and name of each macro that the project has itself."""
    files = (file for path in paths if path != FOLDER for file in _files(project_dir / path))
    for file in sorted(file for file in files if file.suffix == ".sql" and file.is_file()):
        text = _COMMENT.sub(lambda found: "\n" * found[0].count("\n"), file.read_text("utf-8", "replace"))
        for found in _MACRO.finditer(text):
            yield file, text.count("\n", 0, found.start()) + 1, found[1]


def _has_seeds(project_dir: Path, project: Mapping[str, Any]) -> bool:
    """Whether dbt finds seeds in the project or in a package of it; also where only dbt can tell."""
    installed = str(project.get("packages-install-path") or "dbt_packages")
    if "{{" in installed or _holds_seeds(project_dir, project):
        return True
    files = (project_dir / installed).glob(f"*/{PROJECT_FILE}")
    return any(_holds_seeds(file.parent, yaml.safe_load(file.read_text("utf-8")) or {}) for file in files)


def _holds_seeds(folder: Path, project: Mapping[str, Any]) -> bool:
    paths = [str(path) for path in project.get("seed-paths") or DBT_PATHS["seed-paths"]]
    return any("{{" in path or any(_is_seed(file.name) for file in _files(folder / path)) for path in paths)


def _is_seed(name: str) -> bool:
    return name.lower().endswith(".csv")


def _files(folder: Path) -> Iterator[Path]:
    # As dbt does, which goes through links.
    for below, _, names in os.walk(folder, followlinks=True):
        yield from (Path(below, name) for name in names)
