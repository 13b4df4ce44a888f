"""Compiles the products for the image, and builds it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from deploy.demo.engines import DemoError, Engine
from floe_dagster.atomic import PRIVATE, write_atomically

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = Path("docker/dagster-demo/Dockerfile")
MANIFEST = Path("manifests/demo.yaml")
IMAGE = "floe-dagster-demo"
PIP_SETTINGS = {
    "PIP_INDEX_URL": "index-url",
    "PIP_EXTRA_INDEX_URL": "extra-index-url",
    "PIP_TRUSTED_HOST": "trusted-host",
    "PIP_DEFAULT_TIMEOUT": "timeout",
}
"""What of this machine's settings of pip a build gets, as a secret."""


def project_version(root: Path = ROOT) -> str:
    """Return the version of the project."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def default_tag(root: Path = ROOT) -> str:
    """Return name and tag of the image: the tag is the project's version."""
    return f"{IMAGE}:{project_version(root)}"


def compile_products(root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> None:
    """Write `target/` of every product, compiled for the cluster's platform manifest.

    No service and no secret is needed: the manifest's references stay references.

    Args:
        root: The repository's root.
        environ: For the compilation; `FLOE_MANIFEST` does not count.

    Raises:
        DemoError: A product does not compile; its findings are on the terminal.
    """
    program = Path(sys.executable).with_name("floe-dagster")
    command = [str(program), "compile", "--manifest", str(root / MANIFEST)]
    products = sorted(str(spec.parent) for spec in root.glob("products/*/floe.yaml"))
    environment = {name: value for name, value in environ.items() if name != "FLOE_MANIFEST"}
    if subprocess.run([*command, *products], cwd=root, env=environment).returncode:
        raise DemoError("a product does not compile for manifests/demo.yaml; mend what is named above")


def build_image(
    engine: Engine,
    tag: str,
    *,
    root: Path = ROOT,
    arguments: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> None:
    """Build the image from a folder in which the products are compiled.

    Args:
        engine: Builds it.
        tag: Name and tag.
        root: The repository's root.
        arguments: Build arguments beside version, revision and time.
        options: Further options of the engine's own.

    Raises:
        DemoError: The build fails; its output is on the terminal.
    """
    with pip_secrets(os.environ) as secrets:
        command = engine.build_command(
            dockerfile=root / DOCKERFILE,
            context=root,
            tag=tag,
            arguments={**provenance(root), **(arguments or {})},
            secrets=secrets,
            options=options,
        )
        if subprocess.run(command, cwd=root, env=engine.environment()).returncode:
            raise DemoError(f"{engine.name} did not build {tag}; the reason stands above")


def provenance(root: Path) -> dict[str, str]:
    """Return version, revision and time of what is built; the commit's time, so that a build can be repeated."""
    found = {"VERSION": project_version(root)}
    revision = _git(root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    if revision:
        found["REVISION"] = revision
        seconds = os.environ.get("SOURCE_DATE_EPOCH") or _git(root, "log", "-1", "--format=%ct")
        found["CREATED"] = datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return found


@contextmanager
def pip_secrets(environ: Mapping[str, str]) -> Iterator[dict[str, Path]]:
    """Yield files with this machine's settings of pip (index, certificates), by the id of the build's secret.

    Args:
        environ: `PIP_INDEX_URL` may hold a password, so it is no build argument: those stay in an image's history.
    """
    settings = {option: environ[name] for name, option in PIP_SETTINGS.items() if environ.get(name)}
    secrets: dict[str, Path] = {}
    with tempfile.TemporaryDirectory(prefix="floe-build-") as folder:
        certificates = (
            environ.get("PIP_CERT") or environ.get("REQUESTS_CA_BUNDLE") or environ.get("SSL_CERT_FILE")
        )
        if certificates and Path(certificates).is_file():
            secrets["pip-ca"] = Path(certificates)
            settings["cert"] = "/run/secrets/ca.pem"
        if settings:
            file = Path(folder) / "pip.conf"
            lines = [f"{option} = {value}" for option, value in settings.items()]
            write_atomically(file, "\n".join(["[global]", *lines, ""]).encode(), mode=PRIVATE)
            secrets["pip"] = file
        yield secrets


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
