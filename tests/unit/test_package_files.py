"""Which files policies read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from floe_dagster.compilation.package_files import governed_files, package_folders
from floe_dagster.compilation.sources import source_state
from floe_dagster.home import FloeHome


@pytest.mark.parametrize("is_locked", [True, False])
def test_a_file_of_an_installed_package_is_read_once(shop: Path, home: FloeHome, is_locked: bool) -> None:
    """With a lock file it is one of the sources; without one, dbt has installed it into the staged copy alone."""
    lock = "packages:\n- name: lib\n  package: a/lib\n  version: 1.0.0\n"
    files = {"dbt_project.yml": "name: lib\n", "macros/m.sql": "{% macro one() %}1{% endmacro %}\n"}
    staged = home.path / "staged"
    for root in (shop, staged):
        for name, text in files.items():
            path = root / "dbt_packages" / "lib" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        if is_locked:
            (root / "package-lock.yml").write_text(lock)
    shutil.copy(shop / "dbt_project.yml", staged)
    state = source_state(shop, home=home)
    assert any("dbt_packages" in file.name for file in state.files) == is_locked
    names = [file.name for file in governed_files(state, staged, shop.parent, "shop")]
    assert len(names) == len(set(names)) and "dbt_packages/lib/macros/m.sql" in names
    assert package_folders(shop, staged) == {"lib": "dbt_packages/lib"}


def test_packages_outside_of_the_project_are_named_without_a_traceback(shop: Path, home: FloeHome) -> None:
    outside = home.path / "elsewhere" / "lib"
    outside.mkdir(parents=True)
    (outside / "dbt_project.yml").write_text("name: lib\n")
    project = shop / "dbt_project.yml"
    project.write_text(f"{project.read_text()}packages-install-path: {outside.parent}\n")
    (folder,) = package_folders(shop, shop).values()
    assert folder.endswith("elsewhere/lib") and (shop / folder).resolve() == outside.resolve()
