"""The server of a catalog, as check, bootstrap and wait ask it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol

from floe_dagster.platform.health import Seen
from floe_dagster.platform.steps import Steps
from floe_dagster.schemas.catalog_types import CATALOG_TYPES


class CatalogServer(Protocol):
    """What `CatalogType.server` names: a class that is made from the settings of `plugins.catalog`."""

    address: str

    def reach(self) -> Seen:
        """Look whether it is there, with the credentials of nobody.

        Raises:
            CatalogError: It does not answer, or is something else.
        """
        ...

    def offered(self, catalog: Any) -> Seen:
        """Look whether it offers what publication needs.

        Args:
            catalog: The opened catalog.

        Raises:
            CatalogError: It does not.
        """
        ...

    def wait(self, seconds: float) -> None:
        """Wait until it answers.

        Args:
            seconds: How long at most.

        Raises:
            PlatformError: It did not answer in time.
        """
        ...


@dataclass(frozen=True, slots=True)
class CatalogRequest:
    """What a `CatalogType.bootstrap` gets.

    Args:
        catalog: `plugins.catalog` of the manifest, in the model of its type.
        storage: `plugins.storage`; None where the manifest names none.
        steps: Does each step, or says what it would do.
        environ: Where secrets are looked up.
        namespaces: The only ones that the principal of the runs may manage; all where none is named.
        granted: Those, and where an engine that writes the catalog builds them.
        credentials_file: Where credentials go that the server makes itself.
        management_url: Of the server's management API, where it cannot be told from the catalog's URI.
    """

    catalog: Any
    storage: Any
    steps: Steps
    environ: Mapping[str, str]
    namespaces: tuple[str, ...] = ()
    granted: tuple[str, ...] = ()
    credentials_file: Path | None = None
    management_url: str | None = None


def server_of(kind: str | None, config: Mapping[str, Any] | None) -> CatalogServer | None:
    """Return the server of a catalog; None where it has none, or its type is not known.

    Args:
        kind: `plugins.catalog.type`; None where the embedded one is meant.
        config: `plugins.catalog.config`, secrets as references.
    """
    found = CATALOG_TYPES.get(kind) if kind else None
    if found is None or found.server is None:
        return None
    server: CatalogServer = resolve_name(found.server)(config or {})
    return server
