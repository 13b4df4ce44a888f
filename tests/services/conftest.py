"""Fixtures: the real services, a product that publishes to them, the tables as other engines read them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from deploy.services import control, programs
from deploy.services.environment import read_environment
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.publication import PublicationOptions, PublicationResult, publish_relation
from floe_dagster.iceberg.relation import RelationName
from floe_dagster.platform.bootstrap import STATE_KEYS, Bootstrap
from floe_dagster.schemas.artifacts import PluginRef
from floe_dagster.schemas.manifest import PlatformManifest
from tests.conftest import ROOT
from tests.services.proxy import FaultProxy

TOOLS = ROOT / ".floe" / "tools"
SLOW = ("test_faults.py", "test_secrets.py", "test_events_of_runs.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow ones begin, so that a worker that has nothing left finds something quick to take over."""
    items.sort(key=lambda item: item.path.name not in SLOW)


class Services:
    """MinIO and a REST catalog of this test process alone."""

    def __init__(self, folder: Path, token_seconds: int = 3600) -> None:
        self.folder = folder
        self.state: dict[str, Any] = control.start(folder, TOOLS, token_seconds)
        self.environment: dict[str, str] = read_environment(folder)
        self.manifest: dict[str, Any] = yaml.safe_load((folder / "manifest.yaml").read_text())
        self.state_keys = dict(zip(STATE_KEYS, ("floe-state", "of-nobody-but-this-test"), strict=True))
        environment = {**self.environment, **self.state_keys}
        Bootstrap(PlatformManifest.model_validate(self.manifest), environ=environment).run()

    def plugins(self, catalog_url: str | None = None, storage_url: str | None = None) -> dict[str, PluginRef]:
        """Return catalog and storage, through a proxy where one is named."""
        plugins = json.loads(json.dumps(self.manifest["plugins"]))
        plugins["catalog"]["config"]["uri"] = catalog_url or self.state["catalog"]
        plugins["catalog"]["config"]["timeout_seconds"] = 10
        plugins["storage"]["config"]["endpoint"] = storage_url or self.state["minio"]
        return {name: PluginRef(**plugins[name]) for name in ("catalog", "storage")}

    def write_manifest(self, path: Path, **urls: str) -> Path:
        """Write the manifest, with a proxy's addresses where they are named."""
        document = json.loads(json.dumps(self.manifest))
        for name, plugin in self.plugins(**urls).items():
            document["plugins"][name]["config"] = plugin.config
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    def stop(self) -> None:
        """End both, also those that a test has started again."""
        for pid in self.state["pids"].values():
            programs.stop_process(pid)

    def kill(self, name: str) -> None:
        """End one service with SIGKILL."""
        programs.stop_process(self.state["pids"][name], signal.SIGKILL)

    def start(self, name: str) -> None:
        """Start one service again and wait for it."""
        self.state["pids"][name] = control.start_one(name, self.folder, TOOLS, self.state)
        control.wait_for(name, self.state, self.folder)

    def restart_later(self, name: str, seconds: float) -> threading.Timer:
        """Start one service again after a while."""
        timer = threading.Timer(seconds, self.start, (name,))
        timer.start()
        return timer

    def store(self) -> Any:
        """Return a MinIO client of its administrator."""
        from minio import Minio

        return Minio(
            self.state["minio"].partition("//")[2],
            access_key=self.environment["MINIO_ROOT_USER"],
            secret_key=self.environment["MINIO_ROOT_PASSWORD"],
            secure=False,
        )

    def dagster_keys(self) -> dict[str, str]:
        """Return what the chart's Secret of Dagster's state holds: keys that do not reach the warehouse."""
        return dict(
            zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), self.state_keys.values(), strict=True)
        )

    def objects(self, prefix: str) -> set[str]:
        """Return the names of the objects below a prefix of the warehouse."""
        found = self.store().list_objects(control.BUCKET, prefix=f"warehouse/{prefix}", recursive=True)
        # PyArrow leaves an empty marker of a "folder" behind when it removes what lay in it.
        return {entry.object_name for entry in found if not entry.object_name.endswith("/")}


@pytest.fixture(scope="session")
def tools() -> Path:
    control.build(TOOLS)
    return TOOLS


@pytest.fixture(scope="session")
def _services(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    made = Services(tmp_path_factory.mktemp("services"))
    yield made
    made.stop()


@pytest.fixture
def services(_services: Services, monkeypatch: pytest.MonkeyPatch) -> Services:
    """Services that run, whatever the test before did to them; the secrets are in the environment."""
    for name in ("minio", "catalog"):
        if not programs.is_alive(_services.state["pids"][name]):
            _services.start(name)
    for name, value in _services.environment.items():
        if "ROOT" not in name:
            monkeypatch.setenv(name, value)
    return _services


@pytest.fixture
def proxy(services: Services) -> Iterator[FaultProxy]:
    """In front of the catalog."""
    made = FaultProxy(services.state["catalog"])
    yield made
    made.close()


@pytest.fixture
def storage_proxy(services: Services) -> Iterator[FaultProxy]:
    """In front of MinIO."""
    made = FaultProxy(services.state["minio"])
    yield made
    made.close()


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    """A namespace of this test alone."""
    import zlib

    return f"ns_{zlib.crc32(request.node.nodeid.encode()):08x}"


class Shop:
    """One table, published from DuckDB to the services."""

    def __init__(self, services: Services, namespace: str, home: FloeHome, **urls: str) -> None:
        self.namespace = namespace
        self.home = home
        self.services = services
        self.catalog = open_catalog(**services.plugins(**urls), home=home)
        self.direct = open_catalog(**services.plugins(), home=home) if urls else self.catalog
        self.con = duckdb.connect()

    def publish(self, sql: str, table: str = "t", mark: str = "m", **options: Any) -> PublicationResult:
        """Publish the rows of a query."""
        self.con.execute(f"create or replace table t as {sql}").fetchall()
        return publish_relation(
            self.con,
            RelationName("memory", "main", "t"),
            catalog=self.catalog,
            namespace=self.namespace,
            table=table,
            snapshot_properties={"floe.run-group": mark},
            options=PublicationOptions(product="shop", scratch=self.home.path / "scratch", **options),
        )

    def rows(self, table: str = "t") -> list[tuple[Any, ...]]:
        """Return the published rows, sorted."""
        found = self.direct.load_table((self.namespace, table)).scan().to_arrow().to_pylist()
        return sorted(tuple(row.values()) for row in found)

    def snapshots(self, table: str = "t") -> int:
        """Return how many snapshots there are."""
        return len(self.direct.load_table((self.namespace, table)).metadata.snapshots)


@pytest.fixture
def shop_table(services: Services, namespace: str, home: FloeHome) -> Shop:
    return Shop(services, namespace, home)


@pytest.fixture
def through(services: Services, namespace: str, home: FloeHome) -> Callable[..., Shop]:
    """A shop whose requests go through proxies."""
    return lambda **urls: Shop(services, namespace, home, **urls)


@pytest.fixture
def floe(services: Services, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts `floe-dagster` as a process of its own."""

    def begin(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("floe-dagster")), *arguments],
            env={**os.environ, "FLOE_HOME": str(tmp_path / "home"), **environment},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return begin


@pytest.fixture(scope="session")
def toxiproxy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toxiproxy server, built once."""
    found = TOOLS / "toxiproxy-v2.12.0"
    if not found.exists():
        if shutil.which("go") is None:
            pytest.fail("go is missing: apt-get install golang, or https://go.dev/dl; it builds toxiproxy")
        staging = tmp_path_factory.mktemp("go")
        subprocess.run(
            ["go", "install", "github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0"],
            env={**os.environ, "GOBIN": str(staging)},
            check=True,
        )
        # Test processes beside this one must see none or all of it.
        partial = found.with_suffix(f".{os.getpid()}")
        shutil.copy2(staging / "server", partial)
        partial.replace(found)
    return found
