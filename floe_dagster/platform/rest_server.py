"""A server that speaks the Iceberg REST protocol, as check, bootstrap and wait ask it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from floe_dagster.bounded_http import bounded_session
from floe_dagster.iceberg.errors import CatalogError
from floe_dagster.iceberg.pyiceberg_private import supported_endpoints
from floe_dagster.platform.health import Seen
from floe_dagster.platform.waiting import wait_for


class RestServer:
    """See `catalog_server.CatalogServer`.

    Args:
        config: `plugins.catalog.config`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.address = str(config.get("uri", "")).rstrip("/")
        self._seconds = min(float(config.get("timeout_seconds") or 20.0), 20.0)

    def reach(self) -> Seen:
        """Look whether it is there: without a token it answers 401, which will do."""
        answer = bounded_session(self._seconds, repeats=2).get(f"{self.address}/v1/config")
        if answer.status_code >= 500:
            raise CatalogError(f"the catalog at {self.address} answers HTTP {answer.status_code}")
        if answer.status_code == 404:
            raise CatalogError(f"at {self.address} is no Iceberg REST catalog: /v1/config is not there")
        return f"{self.address} answers", {"server": answer.headers.get("Server", "")}

    def offered(self, catalog: Any) -> Seen:
        """Look whether it offers what publication needs, as it says itself."""
        import pyiceberg
        from pyiceberg.catalog.rest import Capability

        wanted = {
            "create table": Capability.V1_CREATE_TABLE,
            "load table": Capability.V1_LOAD_TABLE,
            "update table": Capability.V1_UPDATE_TABLE,
            "create namespace": Capability.V1_CREATE_NAMESPACE,
        }
        offered = supported_endpoints(catalog)
        missing = [name for name, endpoint in wanted.items() if endpoint not in offered]
        if missing:
            raise CatalogError(f"the catalog does not offer: {', '.join(missing)}")
        details = {"pyiceberg": pyiceberg.__version__, "endpoints": len(offered)}
        return (
            f"PyIceberg {pyiceberg.__version__}; the catalog offers {details['endpoints']} endpoints",
            details,
        )

    def wait(self, seconds: float) -> None:
        """Wait until it answers. Any answer but a server error will do: without a token it is 401."""
        session = bounded_session(10.0, repeats=0)
        wait_for(
            "the catalog",
            self.address,
            lambda: session.get(f"{self.address}/v1/config").status_code < 500,
            seconds,
        )
