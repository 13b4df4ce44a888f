"""What the image's files promise to each other; tests/deploy builds and starts it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from deploy.demo.engines import ENGINES, DemoError, find_engine
from deploy.demo.image import DOCKERFILE, pip_secrets
from tests.conftest import ROOT

IMAGE = ROOT / DOCKERFILE.parent
PINNED = re.compile(r"(?m)^([a-z0-9._-]+)==([^ ;\\]+)")


def _locked(name: str) -> dict[str, set[str]]:
    versions: dict[str, set[str]] = {}
    for package, version in PINNED.findall((ROOT / name).read_text()):
        versions.setdefault(package, set()).add(version)
    return versions


def test_the_base_image_is_the_one_of_the_locked_dagster() -> None:
    dockerfile = (ROOT / DOCKERFILE).read_text()
    (version,) = re.findall(r"(?m)^ARG DAGSTER_VERSION=(.+)$", dockerfile)
    assert _locked("requirements-image.txt")["dagster"] == {version}
    assert "ARG BASE_IMAGE=dagster/dagster-celery-k8s:${DAGSTER_VERSION}" in dockerfile
    assert f"dagster=={version}" in (ROOT / "tests/deploy/image/official.in").read_text()


@pytest.mark.parametrize("other", ["requirements.txt", "requirements-dev.txt"])
def test_the_image_has_the_versions_that_were_tested(other: str) -> None:
    image, tested = _locked("requirements-image.txt"), _locked(other)
    assert {"dbt-core", "dbt-duckdb", "duckdb", "dagster", "pyiceberg"} <= image.keys() & tested.keys()
    assert {name: image[name] for name in image.keys() & tested.keys()} == {
        name: tested[name] for name in image.keys() & tested.keys()
    }
    assert {"dagster-postgres", "dagster-aws", "s3fs"} <= image.keys()


@pytest.mark.parametrize("dockerfile", sorted(ROOT.glob("docker/*/*Dockerfile")), ids=lambda path: path.stem)
def test_what_a_build_reads_is_let_through(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        source for line in re.findall(r"(?m)^COPY (?!--from)(.+)$", text) for source in line.split()[:-1]
    ]
    read = [*copied, *re.findall(r"type=bind,source=([^,\s]+)", text)]
    assert read
    for source in read:
        path = Path(source)
        assert (ROOT / path).exists(), source
        assert allowed & {str(folder) for folder in (path, *path.parents)}, (
            f".dockerignore keeps {source} away"
        )


def test_the_page_of_the_demo_is_at_the_port_of_its_service() -> None:
    values = yaml.safe_load((ROOT / "deploy/floe-platform/values.yaml").read_text())
    port = values["dagster"]["dagsterWebserver"]["service"]["port"]
    assert f"3000:{port}," in (ROOT / "deploy/demo/__main__.py").read_text()


def test_the_build_backend_is_the_one_of_the_project() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert (IMAGE / "requirements-build.in").read_text().split() == wanted


def test_the_image_has_the_locations_of_the_workspace() -> None:
    def locations(path: Path) -> list[tuple[str, str]]:
        entries = [entry["python_module"] for entry in yaml.safe_load(path.read_text())["load_from"]]
        return [(entry["location_name"], entry["module_name"]) for entry in entries]

    found = locations(IMAGE / "workspace.yaml")
    assert found == locations(ROOT / "workspace.yaml")
    products = {path.parent.name for path in ROOT.glob("products/*/floe.yaml")}
    assert {module for _name, module in found} == {f"{product}.definitions" for product in products}
    assert all((ROOT / "products" / product / "__init__.py").exists() for product in products)


def test_a_base_image_with_an_old_python_is_refused() -> None:
    (code,) = re.findall(r'(?m)^RUN python -c "(import sys; v = .+)"$', (ROOT / DOCKERFILE).read_text())

    def refused(version: tuple[int, int]) -> subprocess.CompletedProcess[str]:
        script = f"import sys; sys.version_info = {version}; exec(sys.argv[1])"
        return subprocess.run([sys.executable, "-c", script, code], capture_output=True, text=True)

    assert refused((3, 11)).returncode == 0
    done = refused((3, 10))
    assert done.returncode == 1
    assert "the base image has Python 3.10" in done.stderr and "BASE_IMAGE=python:3.12-slim" in done.stderr


def test_make_demo_builds_the_image_that_is_compiled_for_it() -> None:
    done = subprocess.run(["make", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True, check=True)
    steps = re.findall(r"-m deploy\.demo (\w+)", done.stdout)
    assert steps == ["check", "compile", "image", "up"]


def test_what_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DemoError) as missing:
        find_engine()
    assert all(f"{engine.name} is not installed" in str(missing.value) for engine in ENGINES)
    assert "apt-get install buildah" in str(missing.value)
    # A client without the engine behind it is told apart from none.
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2; exit 1\n")
    client.chmod(0o755)
    with pytest.raises(
        DemoError, match="docker is installed, and its engine does not answer: Cannot connect"
    ):
        find_engine("docker")
    with pytest.raises(DemoError, match="'rkt' is no container engine"):
        find_engine("rkt")


def test_make_demo_names_every_tool_that_is_missing(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path)}
    command = [sys.executable, "-m", "deploy.demo", "check"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for tool in ("kind", "kubectl", "helm", "docker", "podman", "buildah"):
        assert f"{tool} is not installed" in done.stderr


def test_an_index_with_a_password_is_a_secret_of_the_build(tmp_path: Path) -> None:
    certificates = tmp_path / "ca.pem"
    certificates.write_text("a certificate")
    address = "@".join(["https://somebody:hush", "index.example.com/simple"])
    environ = {"PIP_INDEX_URL": address, "PIP_CERT": str(certificates)}
    with pip_secrets(environ) as secrets:
        assert secrets["pip-ca"] == certificates
        assert secrets["pip"].stat().st_mode & 0o077 == 0
        assert f"index-url = {address}" in secrets["pip"].read_text()
        command = ENGINES[0].build_command(
            dockerfile=Path("D"), context=Path(), tag="t", arguments={"VERSION": "1"}, secrets=secrets
        )
    assert not any("hush" in argument for argument in command)
    assert not secrets["pip"].exists()
    with pip_secrets({}) as none:
        assert none == {}
