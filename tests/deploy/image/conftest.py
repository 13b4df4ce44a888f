"""Fixtures: the image, built once from a copy of the repository, and pods of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from deploy.dagster_plus.__main__ import DOCKERFILE as PLUS_DOCKERFILE
from deploy.dagster_plus.__main__ import build_plus_image
from deploy.demo.engines import ENGINES, Engine
from deploy.demo.image import DOCKERFILE, build_image, compile_products, pip_secrets, provenance
from tests.conftest import ROOT
from tests.deploy.image.container import Pod
from tests.deploy.image.official import official_image
from tests.deploy.image.storage import CACHE, Storage, missing_tools

IMAGE = "localhost/floe-dagster-demo:test"
PLUS_IMAGE = "localhost/floe-dagster-plus:test"
PLANTED_TEXT = "what must stay at home"
PLANTED = (
    ".env",
    ".git/config",
    ".venv/pyvenv.cfg",
    ".floe/services/environment",
    "docs/notes.md",
    "manifests/.credentials.yaml",
    "manifests/client.pem",
    "products/customer_360/.env",
    "products/customer_360/.user.yml",
    "products/customer_360/profiles.yml",
    "products/customer_360/local.duckdb",
    "products/customer_360/logs/dbt.log",
    "products/customer_360/secrets.yaml",
    "products/customer_360/target/partial_parse.msgpack",
    "products/macros/__pycache__/old.pyc",
    "floe_dagster/private.key",
    "floe_dagster/.env.local",
)
"""What lies about in a work tree and has no business in an image."""
COPIED = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "requirements-image.txt",
    "requirements-plus.txt",
    ".dockerignore",
    "floe_dagster",
    "manifests",
)


@dataclass(frozen=True)
class Built:
    """The image.

    Args:
        storage: Holds it.
        name: Its name.
        base: The image that it extends.
        context: The copy of the repository that it was built from, products compiled.
        config: Its configuration.
        root: Its files.
    """

    storage: Storage
    name: str
    base: str
    context: Path
    config: Mapping[str, Any]
    root: Path


@pytest.fixture(scope="session")
def storage() -> Iterator[Storage]:
    if missing := missing_tools():
        pytest.fail(f"images cannot be built here: apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        pytest.fail("images are built and started without an engine here, which only root can; run as root")
    CACHE.mkdir(parents=True, exist_ok=True)
    # One session at a time: each begins by removing what a killed one has left.
    with FileLock(CACHE / "session.lock", timeout=1800):
        storage = Storage(CACHE)
        storage.clean_up()
        yield storage


def buildah(storage: Storage) -> tuple[Engine, list[str]]:
    """Return the engine, and the options that let it build in the tests' own storage."""
    (engine,) = (engine for engine in ENGINES if engine.name == "buildah")
    return engine, ["--network", "host", "--pull-never"]


def write_context(folder: Path) -> Path:
    """Copy what an image is built from, and plant what must not get into it; returns the folder."""
    ignored = shutil.ignore_patterns("target", "__pycache__", "*.pyc")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    shutil.copytree(ROOT / "products", folder / "products", ignore=ignored)
    for dockerfile in (DOCKERFILE, PLUS_DOCKERFILE):
        shutil.copytree(ROOT / dockerfile.parent, folder / dockerfile.parent, ignore=ignored)
    for name in PLANTED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(PLANTED_TEXT)
    return folder


@pytest.fixture(scope="session")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which the products are compiled with nothing in the environment."""
    folder = write_context(tmp_path_factory.mktemp("context"))
    (folder / "workspace.yaml").write_text("load_from: []\n")
    compile_products(folder, {"PATH": os.environ["PATH"], "FLOE_HOME": str(tmp_path_factory.mktemp("home"))})
    return folder


@pytest.fixture(scope="session")
def base(storage: Storage) -> str:
    return official_image(storage)


@pytest.fixture(scope="session")
def image(storage: Storage, base: str, context: Path) -> Iterator[Built]:
    """The image, built by the very code of `make build-demo-image`."""
    engine, options = buildah(storage)
    with storage.as_environment():
        build_image(engine, IMAGE, root=context, arguments={"BASE_IMAGE": base}, options=options)
    container, root = storage.mounted(IMAGE)
    try:
        yield Built(storage, IMAGE, base, context, storage.config(IMAGE), root)
    finally:
        storage.remove(container)


@pytest.fixture(scope="session")
def plus(image: Built) -> Iterator[Built]:
    """The image for Dagster+, built on that of the demo by the very code of `make build-plus-image`."""
    engine, options = buildah(image.storage)
    with image.storage.as_environment():
        build_plus_image(engine, PLUS_IMAGE, image.name, root=image.context, options=options)
    container, root = image.storage.mounted(PLUS_IMAGE)
    try:
        yield replace(image, name=PLUS_IMAGE, config=image.storage.config(PLUS_IMAGE), root=root)
    finally:
        image.storage.remove(container)


@pytest.fixture
def rebuild(image: Built, tmp_path: Path) -> Callable[[Path], subprocess.CompletedProcess[str]]:
    """Builds from a changed copy of the context; only what comes after the packages is done again."""

    def build(changed: Path) -> subprocess.CompletedProcess[str]:
        engine, options = buildah(image.storage)
        with pip_secrets(os.environ) as secrets:
            command = engine.build_command(
                dockerfile=changed / DOCKERFILE,
                context=changed,
                tag="localhost/floe-dagster-demo:broken",
                arguments={"BASE_IMAGE": image.base, **provenance(image.context)},
                secrets=secrets,
                options=options,
            )
            return subprocess.run(
                command, env=image.storage.environment, capture_output=True, text=True, timeout=300
            )

    return build


@pytest.fixture
def changed(image: Built, tmp_path: Path) -> Path:
    """A copy of the context, to be broken."""
    return Path(shutil.copytree(image.context, tmp_path / "changed", symlinks=True))


@pytest.fixture
def pod(image: Built, tmp_path: Path) -> Callable[..., Pod]:
    """Makes a pod; by default with the manifest that the state was compiled for."""

    def make(manifest: str = "demo.yaml", **environ: str) -> Pod:
        content = (image.context / "manifests" / manifest).read_text()
        return Pod(image.root, image.config, tmp_path, content, environ)

    return make
