"""A lease in a real REST catalog."""

from __future__ import annotations

import threading
from typing import Any

from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.leases import HOLDER, PLACE, RENEWAL, lease


def test_two_connections_wait_for_each_other(services: Any, namespace: str, home: FloeHome) -> None:
    plugins = services.plugins()
    one, other = (open_catalog(plugins["catalog"], plugins["storage"], home=home) for _ in range(2))
    one.create_namespace(namespace, {"kept": "yes"})
    order: list[str] = []

    def second() -> None:
        with lease(other, namespace, holder="run b", place="there", say=order.append):
            order.append("b began")

    with lease(one, namespace, holder="run a", place="here", say=order.append, renew_seconds=0.2):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(3)
        assert other.load_namespace_properties(namespace)[HOLDER] == "run a"
        order.append("a ends")
    waiting.join(60)
    assert order == [f"waiting for run a, which writes {namespace}", "a ends", "b began"]
    found = one.load_namespace_properties(namespace)
    assert found["kept"] == "yes" and {HOLDER, PLACE, RENEWAL}.isdisjoint(found)
