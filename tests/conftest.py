"""In which order tests run, what each has to leave as it was, and a project with one product in a temporary folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator
from itertools import count, groupby
from pathlib import Path

import pytest

from floe_dagster.home import FloeHome
from tests import budget
from tests.process_globals import kept

ROOT = Path(__file__).resolve().parent.parent
SLOW = "tests/integration/"
COLLECTED = pytest.StashKey[int]()
"""The place of a test before anything was shuffled."""

_places = count()
_files_begun: list[str] = []

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


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-randomly shuffle and nothing else: a seed before each test would give all tests the same "random" values."""
    if hasattr(config.option, "randomly_reset_seed"):
        config.option.randomly_reset_seed = False
    budget.pytest_configure(config)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Remember where a test stands in its file."""
    item.stash[COLLECTED] = next(_places)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """After files and tests were shuffled: the slow files begin, and what builds on the test before it follows it.

    What begins last ends last: with a slow file, all other workers would have nothing to do meanwhile.
    """
    ordered: list[pytest.Item] = []
    for _path, tests in groupby(items, lambda item: item.path):
        of_file = [*tests]
        if (mark := of_file[0].get_closest_marker("in_file_order")) is not None:
            if not mark.kwargs.get("reason"):
                raise pytest.UsageError(f"{of_file[0].path}: in_file_order needs a reason")
            of_file.sort(key=lambda item: item.stash[COLLECTED])
        ordered += of_file
    items[:] = sorted(ordered, key=lambda item: not item.nodeid.startswith(SLOW))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell with a failure how the same tests run in the same order again, whichever other workers there were."""
    file = item.nodeid.partition("::")[0]
    if file not in _files_begun:
        _files_begun.append(file)
    report = yield
    seed = getattr(item.config.option, "randomly_seed", None)
    if report.failed and isinstance(seed, int):
        again = f"python -m pytest --randomly-seed={seed} {' '.join(_files_begun)}"
        report.sections.append(("what this process ran up to here, in the same order", again))
    return report


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
        # Set first, so that it is taken away again where a command sets it for its process, as `run` does.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
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
