"""Looks at Trino as a run would use it: who it takes, what its catalog is, and whether that is the platform's."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from floe_dagster.engines.errors import EngineError
from floe_dagster.engines.trino.access import FIELD, TrinoAccess
from floe_dagster.engines.trino.queries import TrinoQueries
from floe_dagster.engines.trino.warehouse import Relation, TrinoWarehouse, rendered
from floe_dagster.faults import ADVICE, fault_message, is_fault
from floe_dagster.iceberg.errors import CatalogError, catalog_error
from floe_dagster.iceberg.namespaces import make_namespace
from floe_dagster.platform.health import Explained, HealthCheck, Seen, timed
from floe_dagster.schemas.compute.engine import audit_schema
from floe_dagster.schemas.compute.trino import TRINO

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

OLDEST_VERSION = 476
"""What products were run on; nobody has tried an older one."""

_FIXES = {
    "engine": "Start Trino, or correct {field}: host, port and http_scheme; user and password, or oauth2; certificate_file.",
    "engine-version": f"Upgrade Trino to {OLDEST_VERSION} or newer.",
    "engine-catalog": "Name in {field}.catalog an Iceberg catalog of Trino that user may see, or give Trino one: "
    "connector.name=iceberg, iceberg.catalog.type=rest, and the address, warehouse and oauth2 (scope, too) of plugins.catalog.",
    "engine-schema": "Let {field}.catalog be a Trino catalog of iceberg.catalog.type=rest on the address and warehouse of "
    "plugins.catalog.",
}
_SCOPE = (
    "Give {field}.catalog in Trino iceberg.rest-catalog.oauth2.scope, with the scope of plugins.catalog.config.oauth2 "
    "(PRINCIPAL_ROLE:ALL where that names none)."
)
_SESSION = "Correct {field}.session_properties: Trino takes none of this name, or not this value."
_GRANT = (
    "Grant {field}.user in Trino the right to create, write and drop tables and views in {schema}, and the principal that "
    "Trino has at the catalog the same there."
)


def check_trino(
    config: Mapping[str, Any],
    catalog: Catalog | None,
    *,
    namespaces: Sequence[str],
    environ: Mapping[str, str] | None = None,
    field: str = FIELD,
) -> list[HealthCheck]:
    """Look at everything that a run needs of Trino, in the order in which it would fail.

    A table and a view are made in the audit schema of each namespace, and dropped.

    Args:
        config: Settings of the engine, with references to secrets.
        catalog: `plugins.catalog`, opened; None where it cannot be.
        namespaces: Of the products.
        environ: Where secrets are looked up.
        field: Where the settings stand in the manifest.
    """
    found: list[tuple[TrinoAccess, str]] = []

    def reach() -> Seen:
        if not TRINO.is_installed:
            raise EngineError(
                f"this environment has no {TRINO.adapter}: install floe-dagster[{TRINO.extra}]",
                transient=False,
            )
        access = TrinoAccess(config, environ, field=field)
        version = access.check()
        found.append((access, version))
        who = f"user {access.user!r}" if access.user else "the token"
        return f"{access.base_url} takes {who}", {"version": version}

    checks = [_timed("engine", reach, field)]
    if not found:
        return checks
    access, version = found[0]
    tag = f"floe-check={uuid.uuid4().hex[:12]}"
    warehouse, queries = TrinoWarehouse(access, config["catalog"], tag), TrinoQueries(access, tag)
    checks.append(_timed("engine-version", lambda: _version(warehouse, queries, version), field))
    checks.append(_timed("engine-catalog", lambda: _catalog(warehouse, config["catalog"]), field))
    if checks[-1].passed and catalog is not None:
        for namespace in namespaces:
            look = partial(_schema, warehouse, config["catalog"], catalog, namespace)
            checks.append(_timed("engine-schema", look, field, schema=audit_schema(namespace)))
    return checks


def _timed(name: str, look: Callable[[], Seen], field: str, *, schema: str = "") -> HealthCheck:
    fix = _FIXES[name].format(field=field)

    def explain(error: Exception) -> Explained:
        from trino.exceptions import TrinoQueryError

        if isinstance(error, TrinoQueryError):
            said = " ".join(error.message.split())[:600]
            remedy = fix
            if error.error_name == "INVALID_SESSION_PROPERTY":
                remedy = _SESSION.format(field=field)
            elif "invalid_scope" in said:
                remedy = _SCOPE.format(field=field)
            elif schema and error.error_name == "PERMISSION_DENIED":
                remedy = _GRANT.format(field=field, schema=schema)
            return f"Trino: {error.error_name}: {said}, query {error.query_id}", remedy
        told = catalog_error(error, "what Trino made cannot be looked at in plugins.catalog")
        if isinstance(told, CatalogError | EngineError):
            return str(told), fix
        if is_fault(told):
            return fault_message(told, "Trino cannot be looked at"), ADVICE
        return f"{type(error).__name__}: {error}", fix

    return timed(name, look, explain if TRINO.is_installed else lambda error: (str(error), fix))


def _version(warehouse: TrinoWarehouse, queries: TrinoQueries, version: str) -> Seen:
    number = re.match(r"\d+", version)
    # Builds of others may count otherwise.
    if number and int(number.group()) < OLDEST_VERSION:
        raise EngineError(f"it is Trino {version}, older than {OLDEST_VERSION}", transient=False)
    details: dict[str, Any] = {"version": version}
    rows = _allowed(
        warehouse,
        "select coordinator, count(*) from system.runtime.nodes where state = 'active' group by coordinator",
    )
    said = [f"Trino {version}"]
    if rows is None:
        said.append("nodes: not for this user to see")
    else:
        details["workers"] = sum(int(count) for is_coordinator, count in rows if not is_coordinator)
        said.append(f"workers beside the coordinator: {details['workers']}")
    if policy := queries.retry_policy():
        details["retry_policy"] = policy
        said.append(f"retry policy {policy}")
    return ", ".join(said), details


def _catalog(warehouse: TrinoWarehouse, name: str) -> Seen:
    rows = _allowed(warehouse, "select catalog_name, connector_name from system.metadata.catalogs")
    if rows is None:
        return f"{name}: what it is, Trino does not tell this user", {}
    connectors = {str(catalog): str(connector) for catalog, connector in rows}
    if name not in connectors:
        others = ", ".join(sorted(connectors)) or "none"
        raise EngineError(f"Trino shows this user no catalog {name!r}; it shows: {others}", transient=False)
    if connectors[name] != "iceberg":
        raise EngineError(
            f"Trino's catalog {name!r} is one of the connector {connectors[name]!r}, not of iceberg",
            transient=False,
        )
    return f"{name} is an Iceberg catalog", {"connector": connectors[name]}


def _schema(warehouse: TrinoWarehouse, name: str, catalog: Catalog, namespace: str) -> Seen:
    """What a run does: it makes the schema itself, Trino writes tables in it, and they are looked for in the catalog."""
    schema, table = audit_schema(namespace), f"floe_check_{uuid.uuid4().hex[:12]}"
    make_namespace(catalog, schema)
    # Of Trino's own metadata: a schema that is hidden from the user is not in it.
    if not warehouse.execute(
        f"show schemas from {rendered((name,))} like '{schema.replace('_', '!_')}' escape '!'"
    ):
        raise EngineError(
            f"Trino's catalog {name!r} does not show the schema {schema}, which plugins.catalog has: it is another catalog, "
            "or the schema is hidden from the user",
            transient=False,
        )
    view = f"{table}_view"
    try:
        warehouse.execute(f"create table {rendered((name, schema, table))} as select 1 as id")
        if not catalog.table_exists((schema, table)):
            raise EngineError(
                f"the table that Trino made in {name}.{schema} is not in plugins.catalog: it is another catalog",
                transient=False,
            )
        location = catalog.load_table((schema, table)).location()
        warehouse.execute(
            f"create view {rendered((name, schema, view))} as select * from {rendered((name, schema, table))}"
        )
        warehouse.drop((name, schema, view), "view")
        warehouse.drop((name, schema, table), "table")
    except Exception:
        _forget(warehouse, catalog, (name, schema, view), (name, schema, table))
        raise
    return f"{name}.{schema} takes tables and views, and plugins.catalog has them", {"location": location}


def _forget(warehouse: TrinoWarehouse, catalog: Catalog, view: Relation, table: Relation) -> None:
    """Drop what an attempt that failed has made; why it failed says more than what goes wrong here."""
    ways: tuple[tuple[Callable[[], object], ...], ...] = (
        (lambda: warehouse.drop(view, "view"), lambda: catalog.drop_view(tuple(view[1:]))),
        (lambda: warehouse.drop(table, "table"), lambda: catalog.drop_table(tuple(table[1:]))),
    )
    for steps in ways:
        for step in steps:
            with suppress(Exception):
                step()
                break


def _allowed(warehouse: TrinoWarehouse, sql: str) -> list[list[Any]] | None:
    """Return the rows of a question; None where the user may not ask it."""
    from trino.exceptions import TrinoQueryError

    try:
        return warehouse.execute(sql)
    except TrinoQueryError as error:
        if error.error_name == "PERMISSION_DENIED":
            return None
        raise
