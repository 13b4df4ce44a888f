"""What each test has to leave as it was, and a project with one product in a temporary folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from floe_dagster.home import FloeHome
from tests.process_globals import kept

ROOT = Path(__file__).resolve().parent.parent

MANIFEST = """\
apiVersion: floe.dev/v1
kind: Manifest
metadata: {name: test-platform, version: 1.0.0, owner: platform@example.com}
"""
SPEC = """\
apiVersion: floe.dev/v1
kind: FloeSpec
metadata: {name: shop, version: 1.0.0, owner: shop@example.com}
platform: {manifest: ../manifest.yaml}
"""


@pytest.fixture(autouse=True, scope="session")
def _kept_by_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    yield from kept("fixtures of the session", tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True, scope="module")
def _kept_by_the_module(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    yield from kept(f"fixtures of {request.node.nodeid}", tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def _kept_by_the_test(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    yield from kept(request.node.nodeid, tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def _clean_environment(_kept_by_the_test: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("FLOE_HOME", "FLOE_MANIFEST", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")


@pytest.fixture
def retried_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are tried again once and at once: for what gets no better by waiting."""
    from floe_dagster.definitions import factory

    policy = factory.dg.RetryPolicy(max_retries=1)
    monkeypatch.setattr(factory.dg, "RetryPolicy", lambda **_: policy)


@pytest.fixture
def home(tmp_path: Path) -> FloeHome:
    return FloeHome(tmp_path / "home")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A small product: two models, one after the other."""
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    (tmp_path / "manifest.yaml").write_text(MANIFEST)
    product = tmp_path / "shop"
    (product / "models").mkdir(parents=True)
    (product / "floe.yaml").write_text(SPEC)
    (product / "dbt_project.yml").write_text(
        "name: shop\nversion: 1.0.0\nprofile: shop\nmodels: {+materialized: table}\n"
    )
    (product / "models" / "orders.sql").write_text("select 1 as id, 'paid' as status\n")
    (product / "models" / "daily.sql").write_text("select count(*) as n from {{ ref('orders') }}\n")
    return product


def shipped(folder: Path, *names: str) -> Path:
    """Copy shipped products, with macros and manifests, into a project; returns the first one's folder."""
    (folder / "workspace.yaml").write_text("load_from: []\n")
    ignored = shutil.ignore_patterns("target", "__pycache__")
    shutil.copytree(ROOT / "manifests", folder / "manifests", dirs_exist_ok=True)
    for name in ("macros", *names):
        shutil.copytree(
            ROOT / "products" / name, folder / "products" / name, ignore=ignored, dirs_exist_ok=True
        )
    return folder / "products" / names[0]


@pytest.fixture
def shipped_product(tmp_path: Path) -> Callable[[str], Path]:
    """Copies a shipped product, with macros and manifests, into a temporary project."""
    return lambda name: shipped(tmp_path, name)
