"""Kinds that an installed distribution brings: those of docs/extending.md, and what is said of one that cannot be used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MANIFEST, ROOT

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = {
    match["file"]: match["text"]
    for match in re.finditer(r"```\w+\n# (?P<file>\S+)\n(?P<text>.*?)```", PAGE, re.DOTALL)
}


def install(
    folder: Path, version: str = "1.0.0", name: str = "acme-floe", **groups: Mapping[str, str]
) -> Path:
    """Install a distribution into a folder, as pip does it: by default the page's."""
    project = tomllib.loads(BLOCKS["pyproject.toml"])["project"]
    entry_points: Mapping[str, Any] = {
        f"floe_dagster.{group}": named for group, named in groups.items()
    } or project["entry-points"]
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(
        "\n".join(
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in named.items())
            for group, named in entry_points.items()
        )
    )
    for file, text in BLOCKS.items():
        if file.endswith(".py"):
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(text)
    return folder


def floe(packages: Path | None, shop: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "FLOE_HOME": str(shop.parent / "home")}
    return subprocess.run(
        [sys.executable, *arguments]
        if arguments[0] == "-c"
        else [Path(sys.executable).with_name("floe-dagster"), *arguments],
        cwd=shop.parent,
        env=environ | ({"PYTHONPATH": str(packages)} if packages else {}),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_product_is_built_and_published_with_what_the_page_brings(tmp_path: Path, shop: Path) -> None:
    packages = install(tmp_path / "packages")
    (shop.parent / "manifest.yaml").write_text(MANIFEST + BLOCKS["manifest.yaml"])
    done = floe(packages, shop, "run", shop)
    assert done.returncode == 0, done.stdout + done.stderr
    home = shop.parent / "home"
    assert (home / "duckdb" / "pond_shop.duckdb").exists() and (home / "cellar" / "cellar.db").exists()
    shown = floe(packages, shop, "show", "shop.daily", "--format", "json", "--product-dir", shop)
    assert json.loads(shown.stdout)["rows"] == [{"n": 1}], shown.stderr

    stricter = BLOCKS["manifest.yaml"].replace("longest: 9", "longest: 5")
    (shop.parent / "manifest.yaml").write_text(MANIFEST + stricter)
    done = floe(packages, shop, "validate", shop, "--format", "json")
    (finding,) = json.loads(done.stdout)[0]["findings"]
    assert done.returncode == 1 and (finding["policy"], finding["model"]) == ("short_names", "orders")


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"policies": {"short_names": "acme_floe.nothing:X"}}, "ModuleNotFoundError: No module named"),
        (
            {"policies": {"short_names": "acme_floe.cellar:CELLAR"}},
            "is no floe_dagster.policies.policy.Policy",
        ),
        ({"policies": {"short": "acme_floe.short_names:ShortNames"}}, "calls itself 'short_names'"),
        ({"catalogs": {"polaris": "acme_floe.cellar:CELLAR"}}, "floe-dagster itself brings one of that name"),
        ({"engines": {"duckdb": "acme_floe.pond:POND"}}, "floe-dagster itself brings one of that name"),
    ],
)
def test_what_cannot_be_used_is_a_finding_with_the_name_of_the_distribution(
    tmp_path: Path, shop: Path, groups: dict[str, dict[str, str]], said: str
) -> None:
    packages = install(tmp_path / "packages", **groups)
    done = floe(packages, shop, "validate", "--documents", shop, "--format", "json")
    (finding,) = json.loads(done.stdout)[0]["findings"]
    assert done.returncode == 2 and finding["code"] == "unusable-extension"
    assert finding["message"].startswith("acme-floe 1.0.0 brings") and said in finding["message"]


def test_two_distributions_with_one_name_are_told_apart(tmp_path: Path, shop: Path) -> None:
    packages = install(tmp_path / "packages")
    install(packages, name="other-floe", policies={"short_names": "acme_floe.short_names:ShortNames"})
    done = floe(packages, shop, "validate", "--documents", shop, "--format", "json")
    (finding,) = json.loads(done.stdout)[0]["findings"]
    assert "other-floe 1.0.0 brings 'short_names'" in finding["message"]
    assert "acme-floe 1.0.0 brings one of that name" in finding["message"]


def test_the_version_of_a_distribution_belongs_to_the_digest(tmp_path: Path, shop: Path) -> None:
    code = (
        "from pathlib import Path; from floe_dagster.compilation.sources import source_state; "
        f"print(source_state(Path({str(shop)!r})).digest)"
    )
    installed = [
        None,
        *(install(tmp_path / version.replace(".", ""), version) for version in ("1.0.0", "1.0.1")),
    ]
    digests = [floe(packages, shop, "-c", code).stdout for packages in installed]
    assert all(digests) and len(set(digests)) == 3
    assert floe(None, shop, "-c", code).stdout == digests[0]


@pytest.mark.parametrize("module", ["acme_floe.short_names", "acme_floe.cellar", "acme_floe.pond"])
def test_a_module_of_it_may_be_imported_first(tmp_path: Path, shop: Path, module: str) -> None:
    packages = install(tmp_path / "packages")
    code = f"import {module}; from floe_dagster.schemas.kinds import extension_findings; print(extension_findings())"
    assert floe(packages, shop, "-c", code).stdout == "[]\n"
