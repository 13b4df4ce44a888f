"""Fixtures: a real Trino, coordinator and one worker, beside the real MinIO and REST catalog of tests/services."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog

from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from tests.conftest import ROOT
from tests.services.conftest import (  # noqa: F401 - fixtures of tests/services that are wanted here, too
    TOOLS,
    Services,
    _services,
    control,
    namespace,
    services,
    tools,
)


def _trino() -> Any:
    # It finds `control` beside itself when it runs as a script; here the one that the services were started with.
    sys.modules.setdefault("control", control)
    path = ROOT / "deploy" / "services" / "trino.py"
    spec = importlib.util.spec_from_file_location("trino_cluster", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


trino = _trino()


@pytest.fixture(scope="session")
def trino_server() -> Path:
    """The unpacked server, fetched once."""
    try:
        server: Path = trino.build(TOOLS)
    except control.ServiceError as error:
        pytest.fail(str(error))
    return server


@pytest.fixture(scope="session")
def make_cluster(
    trino_server: Path,
    _services: Services,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., Any]]:
    """Starts a cluster with the options that a test wants; those with other options are ended before.

    Two clusters at once are more than a small machine has memory and cores for.
    """
    made: dict[str, Any] = {}

    def make(**options: Any) -> Any:
        wanted = trino.Options(**options)
        key = repr(wanted)
        for other, cluster in made.items():
            if other != key:
                cluster.stop()
        if key not in made:
            made[key] = trino.Cluster(tmp_path_factory.mktemp("trino"), TOOLS, _services.folder, wanted)
        made[key].start()
        return made[key]

    yield make
    for cluster in made.values():
        cluster.stop()


@pytest.fixture
def cluster(services: Services, make_cluster: Callable[..., Any]) -> Any:  # noqa: F811
    """Coordinator and one worker, whatever the test before did to them."""
    return make_cluster()


@pytest.fixture
def catalog(services: Services, home: FloeHome) -> Catalog:  # noqa: F811
    """The catalog that Trino has as `floe`, as PyIceberg sees it."""
    plugins = services.plugins()
    return open_catalog(plugins["catalog"], plugins["storage"], home=home)
