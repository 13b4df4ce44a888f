"""Brings what an engine needs into the dbt project that is compiled; the product's own files stay as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from floe_dagster.compilation.sources import DBT_PATHS, PROJECT_FILE
from floe_dagster.schemas.compute import ENGINES
from floe_dagster.schemas.product import ProductSpec

FOLDER = "floe_macros"


def apply_overlay(project_dir: Path, engine: str, spec: ProductSpec) -> None:
    """Write an engine's settings and macros into a copy of the product's dbt project.

    Other engines may work with the same copy: macros are of one engine's adapter, settings mean nothing to the others.
    Its packages are installed before: settings hold for them, too.

    Args:
        project_dir: The copy; its `dbt_project.yml` can be read.
        engine: Its name.
        spec: The product spec: layouts of tables.
    """
    overlay = ENGINES[engine].overlay
    if overlay is None:
        return
    layouts: dict[str, dict[str, Any]] = {}
    for transform in spec.transforms or ():
        if transform.table:
            layout = {"partition_by": transform.table.partition_by, "sort_by": transform.table.sort_by}
            layouts[transform.name] = {name: fields for name, fields in layout.items() if fields}
    wanted = overlay(layouts)
    path = project_dir / PROJECT_FILE
    project = yaml.safe_load(path.read_text("utf-8"))
    for section, configs in wanted.configs.items():
        if section == "seeds" and not _has_seeds(project_dir, project):
            # dbt would warn of a setting that nobody here wrote.
            continue
        project[section] = {**configs, **(project.get(section) or {})}
    paths = project.get("macro-paths") or ["macros"]
    project["macro-paths"] = paths if FOLDER in paths else [*paths, FOLDER]
    path.write_text(yaml.safe_dump(project, sort_keys=False, allow_unicode=True), "utf-8")
    folder = project_dir / FOLDER
    folder.mkdir(exist_ok=True)
    (folder / f"{engine}.sql").write_text(wanted.macros, "utf-8")


def _has_seeds(project_dir: Path, project: Mapping[str, Any]) -> bool:
    """Whether dbt finds seeds in the project or in a package of it; also where only dbt can tell."""
    installed = str(project.get("packages-install-path") or "dbt_packages")
    if "{{" in installed or _holds_seeds(project_dir, project):
        return True
    files = (project_dir / installed).glob(f"*/{PROJECT_FILE}")
    return any(_holds_seeds(file.parent, yaml.safe_load(file.read_text("utf-8")) or {}) for file in files)


def _holds_seeds(folder: Path, project: Mapping[str, Any]) -> bool:
    paths = [str(path) for path in project.get("seed-paths") or DBT_PATHS["seed-paths"]]
    return any("{{" in path or any(_is_seed(name) for name in _files(folder / path)) for path in paths)


def _is_seed(name: str) -> bool:
    return name.lower().endswith(".csv")


def _files(folder: Path) -> Iterator[str]:
    # As dbt does, which goes through links.
    for _, _, names in os.walk(folder, followlinks=True):
        yield from names
