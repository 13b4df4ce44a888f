"""Publications that make their namespace at the same moment, in a real REST catalog."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.namespaces import make_namespace


def test_all_find_the_namespace_that_one_of_them_made(services: Any, namespace: str, home: FloeHome) -> None:
    plugins = services.plugins()
    connections = [open_catalog(plugins["catalog"], plugins["storage"], home=home) for _ in range(8)]
    for attempt in range(10):
        name = f"{namespace}_{attempt}"
        together = threading.Barrier(len(connections))

        def make(catalog: Any, name: str = name, together: threading.Barrier = together) -> None:
            together.wait()
            make_namespace(catalog, name)

        with ThreadPoolExecutor(len(connections)) as pool:
            list(pool.map(make, connections))
        assert connections[0].namespace_exists(name)
        connections[0].drop_namespace(name)
