"""Fixtures: a real Trino, coordinator and one worker, beside the real MinIO and REST catalog of tests/services."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from pyiceberg.catalog import Catalog

from deploy.services import programs
from deploy.services.trino.cluster import Cluster
from deploy.services.trino.server import build
from deploy.services.trino.settings import Options
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from tests.services.conftest import (  # noqa: F401 - fixtures of tests/services that are wanted here, too
    TOOLS,
    Services,
    _services,
    namespace,
    services,
    tools,
)
from tests.trino.shops import AUDIT, NOT_TOO_MUCH, ORDERS, SPEC, TESTS, TOTALS, Shop, reached

QUICK_START = ("-XX:TieredStopAtLevel=1",)
"""What runs for minutes is not worth the second compiler: a third less processor time, on machines with two cores."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First what runs on the usual cluster: one with other options takes its place, and each change takes half a minute."""
    items.sort(key=lambda item: "cluster" not in getattr(item, "fixturenames", ()))


@pytest.fixture(autouse=True)
def _retried_at_once(retried_at_once: None) -> None:
    """Nothing here gets better by waiting."""


@pytest.fixture(scope="session")
def trino_server() -> Path:
    """The unpacked server, fetched once."""
    try:
        server: Path = build(TOOLS)
    except programs.ServiceError as error:
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
        wanted = Options(jvm=QUICK_START, **options)
        key = repr(wanted)
        for other, cluster in made.items():
            if other != key:
                cluster.stop()
        if key not in made:
            made[key] = Cluster(tmp_path_factory.mktemp("trino"), TOOLS, _services.folder, wanted)
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


@pytest.fixture
def make_shop(
    shop: Path,
    home: FloeHome,
    catalog: Catalog,
    services: Services,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Shop]]:
    """Makes the product of these tests on a cluster, and forgets its tables."""
    (tmp_path / "dagster").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    (shop / "floe.yaml").write_text(SPEC)
    (shop / "dbt_project.yml").write_text(
        "name: shop\nversion: 1.0.0\nprofile: shop\nmodels: {+materialized: table}\n"
    )
    (shop / "seeds").mkdir()
    (shop / "seeds" / "raw_orders.csv").write_text(
        "id,name,amount\n" + "".join(f"{n},name {n},{n * 10}\n" for n in range(1, 7))
    )
    models = shop / "models"
    (models / "orders.sql").write_text(ORDERS)
    (models / "recent.sql").write_text(
        "{{ config(materialized='view') }}\nselect * from {{ ref('orders') }} where id > 2\n"
    )
    (models / "daily.sql").write_text(
        "select cast(count(*) as bigint) as n, cast(sum(amount) as bigint) as amount from {{ ref('recent') }}\n"
    )
    (models / "totals.sql").write_text(TOTALS)
    (models / "growing.sql").write_text("select max(id) as id from {{ ref('orders') }}\n")
    (models / "schema.yml").write_text(TESTS)
    (shop / "tests").mkdir()
    (shop / "tests" / "not_too_much.sql").write_text(NOT_TOO_MUCH)

    def make(cluster: Any) -> Shop:
        manifest = yaml.safe_load(services.write_manifest(tmp_path / "manifest.yaml").read_text())
        manifest["plugins"]["compute"] = {"type": "trino", "config": reached(cluster)}
        (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
        return Shop(shop, home, catalog, instance)

    with dg.DagsterInstance.get() as instance:
        yield make
    for schema in ("shop", AUDIT):
        if catalog.namespace_exists(schema):
            for identifier in catalog.list_tables(schema):
                catalog.drop_table(identifier)
            for identifier in catalog.list_views(schema):
                catalog.drop_view(identifier)


@pytest.fixture
def on_trino(cluster: Any, make_shop: Callable[..., Shop]) -> Shop:
    """The product on coordinator and one worker."""
    return make_shop(cluster)
