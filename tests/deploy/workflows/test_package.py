"""What is released: wheel, source distribution, software bill of materials."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.conftest import ROOT

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` builds, in a folder of the test's own."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([str(BIN / "uv"), "build", "--quiet", "--out-dir", str(folder)], cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    [found] = dist.glob("*.whl")
    return found


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"floe_dagster", f"{wheel.name.split('-')[0]}-{wheel.name.split('-')[1]}.dist-info"}
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "floe_dagster").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("floe_dagster/")} == sources
    assert "floe_dagster/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [file] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(file).decode())
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "Programming Language :: Python :: 3.13" in metadata.get_all("Classifier", [])


def test_the_source_distribution_builds_the_same_wheel(dist: Path, wheel: Path, tmp_path: Path) -> None:
    [source] = dist.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = archive.getnames()
        assert not [name for name in names if re.search(r"/(tests|products|\.floe|\.github|deploy)/", name)]
        archive.extractall(tmp_path, filter="data")
    [folder] = tmp_path.iterdir()
    again = tmp_path / "again"
    subprocess.run(
        [str(BIN / "uv"), "build", "--quiet", "--wheel", "--out-dir", str(again)], cwd=folder, check=True
    )
    [rebuilt] = again.glob("*.whl")
    assert contents(rebuilt) == contents(wheel)


def contents(wheel: Path) -> dict[str, int]:
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist()}


def test_the_wheel_installs_with_its_command(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    command = [str(BIN / "uv"), "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    subprocess.run([*command, "--python", sys.executable, str(wheel)], check=True)
    # The environment's own packages beside it; -P and the path put the installed one first.
    done = subprocess.run(
        [sys.executable, str(target / "bin" / "floe-dagster"), "--help"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(target), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "compile" in done.stdout, done.stderr
    where = subprocess.run(
        [sys.executable, "-c", "import floe_dagster; print(floe_dagster.__file__)"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(target)


def test_the_bill_of_materials_names_every_locked_package_with_its_hashes(tmp_path: Path) -> None:
    file = tmp_path / "sbom.json"
    subprocess.run(["make", "--no-print-directory", "sbom", f"SBOM={file}"], cwd=ROOT, check=True)
    bill = json.loads(file.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "floe-dagster"
    # A package may be locked twice, for older and newer Pythons.
    listed = {(entry["name"].lower(), entry["version"]) for entry in bill["components"]}
    locked = re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert len(locked) > 50
    assert listed == {(name.lower(), version) for name, version in locked}
    for entry in bill["components"]:
        assert any(reference.get("hashes") for reference in entry["externalReferences"]), entry["name"]
