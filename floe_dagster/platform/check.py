"""Looks at catalog, storage and engine as a run would use them, and says what is wrong and how to mend it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from floe_dagster.faults import ADVICE, fault_message
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import Plugin, open_catalog
from floe_dagster.iceberg.errors import CatalogError, NotUsableError, catalog_error
from floe_dagster.iceberg.namespaces import make_namespace
from floe_dagster.iceberg.pyiceberg_private import table_of
from floe_dagster.platform.catalog_server import server_of
from floe_dagster.platform.health import Explained, HealthCheck, Seen, timed
from floe_dagster.schemas.compute import ENGINES
from floe_dagster.schemas.compute.engine import audit_schema
from floe_dagster.schemas.storage_types import STORAGE_TYPES

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

SKEW_SECONDS = 300.0
"""S3 refuses signatures of clocks that are 15 minutes off; a third of it is the time to say so."""
OWN_NAMESPACE = "floe_check"


FIXES = {
    "catalog": "Start the catalog, or correct plugins.catalog.config.uri.",
    "credentials": "Correct plugins.catalog.config.oauth2 and the environment variable that it names; "
    "`floe-dagster platform bootstrap` makes the principal.",
    "namespace": "Grant the principal CATALOG_MANAGE_CONTENT on the catalog or on this namespace; "
    "`floe-dagster platform bootstrap` does it.",
    "storage": "Correct plugins.storage.config (endpoint, bucket, keys), or let the catalog give credentials; "
    "`floe-dagster platform bootstrap` makes bucket, user and policy.",
    "clock": "Set the clock of this machine (NTP); S3 refuses requests from clocks that are 15 minutes off.",
    "versions": "Upgrade the catalog server, or what stands in front of it: publication needs what is named.",
}


def check_platform(
    catalog: Plugin | None,
    storage: Plugin | None,
    *,
    engines: Mapping[str, Plugin] | None = None,
    home: FloeHome,
    namespaces: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> list[HealthCheck]:
    """Look at everything that publication needs, in the order in which it would fail.

    Nothing stays behind but the namespaces: a table is staged and never committed, an object is written and removed, and
    what an engine makes in the catalog it drops.

    Args:
        catalog: `plugins.catalog`.
        storage: `plugins.storage`.
        engines: By where the manifest has their settings, such as `plugins.compute`; looked at where they have a check.
        home: Where the embedded catalog lies.
        namespaces: Of the products; one of its own is made and removed where none is given.
        environ: Where secrets are looked up.
    """
    checks, opened = _check_catalog(catalog, storage, home, namespaces, environ)
    for field, plugin in (engines or {}).items():
        engine = ENGINES.get(plugin.type)
        if engine is not None and engine.check is not None:
            checks += resolve_name(engine.check)(
                plugin.config or {},
                opened,
                namespaces=namespaces or (OWN_NAMESPACE,),
                environ=environ,
                field=f"{field}.config",
            )
            if engine.writes_catalog and opened is not None and not namespaces:
                checks += _without(opened, audit_schema(OWN_NAMESPACE))
    return checks


def _check_catalog(
    catalog: Plugin | None,
    storage: Plugin | None,
    home: FloeHome,
    namespaces: Sequence[str],
    environ: Mapping[str, str] | None,
) -> tuple[list[HealthCheck], Catalog | None]:
    """Return what was seen, and the catalog; None where it cannot be opened."""
    checks: list[HealthCheck] = []
    server = server_of(catalog.type, catalog.config) if catalog is not None else None
    if server is not None:
        checks.append(_timed("catalog", server.reach))
        if not checks[-1].passed:
            return checks, None
    opened: list[Catalog] = []

    def open_it() -> Seen:
        opened.append(open_catalog(catalog, storage, home=home, environ=environ))
        return ("accepted" if server is not None else "the embedded catalog opens"), {}

    checks.append(_timed("credentials", open_it))
    if not opened:
        return checks, None
    remote = opened[0]
    if server is not None:
        checks.append(_timed("versions", partial(server.offered, remote)))
    for namespace in namespaces or (OWN_NAMESPACE,):
        staged: list[Table] = []
        checks.append(_timed("namespace", partial(_namespace, remote, namespace, staged)))
        if staged:
            checks.append(_timed("storage", partial(_storage, staged[0])))
    if not namespaces:
        checks += _without(remote, OWN_NAMESPACE)
    if storage is not None and STORAGE_TYPES[storage.type].is_shared:
        checks.append(_timed("clock", lambda: _clock(storage)))
    return checks, remote


def _without(catalog: Catalog, namespace: str) -> list[HealthCheck]:
    """Remove a namespace of the check's own; return what keeps it from being removed."""
    try:
        if catalog.namespace_exists(namespace):
            catalog.drop_namespace(namespace)
    except Exception as error:
        return [
            HealthCheck("namespace", False, f"{namespace} cannot be removed: {error}", FIXES["namespace"])
        ]
    return []


def _timed(name: str, look: Callable[[], Seen]) -> HealthCheck:
    def explain(error: Exception) -> Explained:
        told = catalog_error(error, _WHAT[name])
        if not isinstance(told, CatalogError):
            # No service has said anything, so no right and no setting of it is at fault.
            return fault_message(told, _WHAT[name]), ADVICE
        return str(told), FIXES[_remedy(name, told)]

    return timed(name, look, explain)


def _remedy(name: str, error: CatalogError) -> str:
    """Return which of `FIXES` helps: what was being looked at is not always what is wrong."""
    cause = error.cause if isinstance(error, NotUsableError) else "away"
    if cause == "server":
        return "versions"
    if name != "namespace":
        return name
    # Who is there and slow, or gone, is no matter of rights.
    return {"rights": "namespace", "credentials": "credentials", "storage": "storage"}.get(cause, "catalog")


_WHAT = {
    "catalog": "the catalog is not reachable",
    "credentials": "the catalog cannot be used",
    "namespace": "the namespace cannot be written",
    "storage": "the storage cannot be written",
    "clock": "the clocks cannot be compared",
    "versions": "the server cannot be asked what it speaks",
}


def _namespace(catalog: Catalog, namespace: str, staged: list[Table]) -> tuple[str, dict[str, Any]]:
    from pyiceberg.schema import Schema
    from pyiceberg.types import LongType, NestedField

    make_namespace(catalog, namespace)
    schema = Schema(NestedField(1, "id", LongType(), required=False))
    # Staged and never committed: it exists nowhere.
    transaction = catalog.create_table_transaction((namespace, f"floe_check_{uuid.uuid4().hex[:12]}"), schema)
    staged.append(table_of(transaction))
    return f"{namespace} takes tables", {"location": table_of(transaction).location()}


def _storage(table: Table) -> tuple[str, dict[str, Any]]:
    location = f"{table.location()}/data/floe-check"
    with table.io.new_output(location).create(overwrite=True) as stream:
        stream.write(b"floe-dagster platform check")
    try:
        if not table.io.new_input(location).exists():
            raise CatalogError(f"what was written to {location} is not there")
    finally:
        table.io.delete(location)
    return f"{table.location().rpartition('/')[0]} can be written", {}


def _clock(storage: Plugin) -> tuple[str, dict[str, Any]]:
    from floe_dagster.platform.object_store import ObjectStore

    date = ObjectStore(storage.config or {}, None, None).server_date()
    if not date:
        return "the store names no time", {}
    skew = abs((datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds())
    if skew > SKEW_SECONDS:
        raise CatalogError(f"this machine's clock and the store's differ by {skew:.0f} s")
    return f"differs by {skew:.0f} s from the store's", {"skew_seconds": round(skew, 1)}
