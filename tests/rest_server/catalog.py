"""An Iceberg REST catalog over PyIceberg's own catalog in a SQLite file; what it says of keys, a test decides."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote

from pyiceberg import exceptions as iceberg
from pyiceberg.catalog.rest import CreateTableRequest, RegisterTableRequest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.table import CommitTableRequest
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER

from tests.receivers.serving import serving
from tests.rest_server.store import Store

PREFIX = "floe"
SCOPE = "PRINCIPAL_ROLE:ALL"
ENDPOINTS = (
    "GET /v1/{prefix}/namespaces",
    "POST /v1/{prefix}/namespaces",
    "GET /v1/{prefix}/namespaces/{namespace}",
    "HEAD /v1/{prefix}/namespaces/{namespace}",
    "DELETE /v1/{prefix}/namespaces/{namespace}",
    "POST /v1/{prefix}/namespaces/{namespace}/properties",
    "GET /v1/{prefix}/namespaces/{namespace}/tables",
    "POST /v1/{prefix}/namespaces/{namespace}/tables",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "DELETE /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/namespaces/{namespace}/register",
    "POST /v1/{prefix}/tables/rename",
)


@dataclass(frozen=True)
class Given:
    """What an answer says of keys beside the table.

    Args:
        config: As `config` of LoadTableResult.
        credentials: As `storage-credentials`: prefix and properties.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    credentials: tuple[tuple[str, Mapping[str, Any]], ...] = ()


Vending = Callable[[str, str], Given]
"""Called with the table's name and its location, whenever it is created, staged or loaded with delegation."""


@dataclass
class CatalogContract:
    """The catalog, and what it was asked."""

    catalog: SqlCatalog
    client: tuple[str, str]
    vending: Vending
    defaults: dict[str, str] = field(default_factory=dict)
    """Of `/v1/config`."""
    url: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    scopes: list[str] = field(default_factory=list)
    """That tokens were asked for."""
    given: list[str] = field(default_factory=list)
    """Every value that was ever given out as a key, secret ones among them."""
    hold_to: Callable[..., list[str]] | None = None
    """Holds a request and its answer to the published document, and returns what does not fit."""
    violations: list[str] = field(default_factory=list)
    _tokens: set[str] = field(default_factory=set)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        """Answer one request."""
        with self._lock:
            place, _, query = path.partition("?")
            self.calls.append((method, place))
            try:
                status, said = self._serve(method, place, query, headers, body)
            except tuple(_STATUSES) as error:
                status = next(code for kind, code in _STATUSES.items() if isinstance(error, kind))
                said = _error(status, type(error).__name__, str(error))
            except Exception as error:
                self.violations.append(f"{method} {place}: {type(error).__name__}: {error}")
                status, said = 500, _error(500, type(error).__name__, str(error))
            if self.hold_to is not None:
                self.violations += self.hold_to(method, path, headers, body, status, said)
            return status, said

    def _serve(
        self, method: str, place: str, query: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, Any]:
        if place == "/v1/oauth/tokens":
            return self._token(parse_qs(body.decode()))
        if headers.get("authorization", "").removeprefix("Bearer ") not in self._tokens:
            return 401, _error(401, "NotAuthorizedException", "no token")
        if place == "/v1/config":
            defaults = {**self.defaults}
            return 200, {"defaults": defaults, "overrides": {"prefix": PREFIX}, "endpoints": list(ENDPOINTS)}
        parts = [unquote(part) for part in place.removeprefix(f"/v1/{PREFIX}/").split("/")]
        delegated = "vended-credentials" in headers.get("x-iceberg-access-delegation", "")
        match (method, parts):
            case (_, ["namespaces", *rest]) if len(rest) < 2:
                return self._namespaces(method, rest, body, parse_qs(query))
            case ("POST", ["namespaces", namespace, "properties"]):
                asked = json.loads(body)
                summary = self.catalog.update_namespace_properties(
                    namespace, set(asked.get("removals") or ()), asked.get("updates") or {}
                )
                return 200, {name: list(getattr(summary, name)) for name in ("removed", "updated", "missing")}
            case ("GET", ["namespaces", namespace, "tables"]):
                names = [identifier[-1] for identifier in self.catalog.list_tables(namespace)]
                return 200, {"identifiers": [{"namespace": [namespace], "name": name} for name in names]}
            case ("POST", ["namespaces", namespace, "tables"]):
                # PyIceberg leaves out what is null and requires it where it reads.
                optional = dict.fromkeys(("location", "partition-spec", "write-order"))
                asked = CreateTableRequest.model_validate({**optional, **json.loads(body)})
                return self._create(namespace, asked, delegated)
            case ("POST", ["namespaces", namespace, "register"]):
                asked = RegisterTableRequest.model_validate_json(body)
                table = self.catalog.register_table((namespace, asked.name), asked.metadata_location)
                return 200, self._loaded(table, delegated)
            case (_, ["namespaces", namespace, "tables", table]):
                return self._table(method, (namespace, table), body, delegated)
            case ("POST", ["tables", "rename"]):
                asked = json.loads(body)
                old, new = (
                    (*asked[end]["namespace"], asked[end]["name"]) for end in ("source", "destination")
                )
                self.catalog.rename_table(old, new)
                return 204, None
        return 404, _error(404, "NotFoundException", "no such path")

    def _token(self, form: Mapping[str, list[str]]) -> tuple[int, Any]:
        asked = {name: values[0] for name, values in form.items()}
        self.scopes.append(asked.get("scope", ""))
        # Polaris 1.4.1 (TokenRequestValidator): the scope is asked for, and looked at before the client is.
        if asked.get("scope") != SCOPE:
            return 400, {"error": "invalid_scope", "error_description": "The scope is invalid"}
        if (asked.get("client_id"), asked.get("client_secret")) != self.client:
            return 401, {"error": "unauthorized_client", "error_description": "The client is not authorized"}
        token = secrets.token_hex(12)
        self._tokens.add(token)
        return 200, {"access_token": token, "token_type": "bearer", "expires_in": 3600}

    def _namespaces(
        self, method: str, named: list[str], body: bytes, query: Mapping[str, list[str]]
    ) -> tuple[int, Any]:
        if not named and method == "GET":
            return 200, {"namespaces": [list(name) for name in self.catalog.list_namespaces()]}
        if not named:
            asked = json.loads(body)
            self.catalog.create_namespace(tuple(asked["namespace"]), asked.get("properties") or {})
            return 200, {"namespace": asked["namespace"], "properties": asked.get("properties") or {}}
        (name,) = named
        properties = self.catalog.load_namespace_properties(name)
        if method == "DELETE":
            self.catalog.drop_namespace(name)
        if method == "GET":
            return 200, {"namespace": [name], "properties": dict(properties)}
        return 204, None

    def _create(self, namespace: str, asked: CreateTableRequest, delegated: bool) -> tuple[int, Any]:
        settings: dict[str, Any] = {
            "schema": asked.table_schema,
            "location": asked.location,
            "partition_spec": asked.partition_spec or UNPARTITIONED_PARTITION_SPEC,
            "sort_order": asked.write_order or UNSORTED_SORT_ORDER,
            "properties": asked.properties,
        }
        if self.catalog.table_exists((namespace, asked.name)):
            raise iceberg.TableAlreadyExistsError(f"Table already exists: {namespace}.{asked.name}")
        if not asked.stage_create:
            return 200, self._loaded(
                self.catalog.create_table((namespace, asked.name), **settings), delegated
            )
        # What an answer to stage-create holds is made, and registered nowhere.
        self.catalog.load_namespace_properties(namespace)
        staged = self.catalog._create_staged_table((namespace, asked.name), **settings)
        staged.metadata_location = None
        return 200, self._loaded(staged, delegated)

    def _table(
        self, method: str, identifier: tuple[str, str], body: bytes, delegated: bool
    ) -> tuple[int, Any]:
        if method == "POST":
            asked = CommitTableRequest.model_validate_json(body)
            named: Any = SimpleNamespace(name=lambda: identifier)
            done = self.catalog.commit_table(named, asked.requirements, asked.updates)
            return 200, {
                "metadata-location": done.metadata_location,
                "metadata": json.loads(done.metadata.model_dump_json()),
            }
        if method == "DELETE":
            self.catalog.drop_table(identifier)
            return 204, None
        table = self.catalog.load_table(identifier)
        return (204, None) if method == "HEAD" else (200, self._loaded(table, delegated))

    def _loaded(self, table: Any, delegated: bool) -> dict[str, Any]:
        """Return LoadTableResult."""
        given = self.vending(table.name()[-1], table.metadata.location) if delegated else Given()
        for properties in (given.config, *(keys for _prefix, keys in given.credentials)):
            self.given += [
                str(value) for name, value in properties.items() if "access-key" in name or "token" in name
            ]
        said: dict[str, Any] = {
            "metadata": json.loads(table.metadata.model_dump_json()),
            "config": dict(given.config),
        }
        if table.metadata_location is not None:
            said["metadata-location"] = table.metadata_location
        if given.credentials:
            said["storage-credentials"] = [
                {"prefix": prefix, "config": dict(keys)} for prefix, keys in given.credentials
            ]
        return said


_STATUSES: dict[type[Exception], int] = {
    iceberg.NoSuchNamespaceError: 404,
    iceberg.NoSuchTableError: 404,
    iceberg.TableAlreadyExistsError: 409,
    iceberg.NamespaceAlreadyExistsError: 409,
    iceberg.NamespaceNotEmptyError: 409,
    iceberg.CommitFailedException: 409,
}


def _error(status: int, kind: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "code": status}}


@contextlib.contextmanager
def catalog_contract(
    folder: Path, store: Store, warehouse: str, client: tuple[str, str], vending: Vending
) -> Iterator[CatalogContract]:
    """Serve a catalog of this test alone.

    Args:
        folder: Of its SQLite file.
        store: Where it writes metadata, as the store's administrator.
        warehouse: Location of its tables.
        client: Id and secret of its one principal.
        vending: What it says of keys.
    """
    folder.mkdir(parents=True, exist_ok=True)
    catalog = SqlCatalog(
        "contract",
        uri=f"sqlite:///{folder / 'contract.db'}?check_same_thread=false",
        warehouse=warehouse,
        **store.administrator(),
    )
    contract = CatalogContract(catalog, client, vending)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, said = contract.answer(self.command, self.path, headers, body)
            content = b"" if said is None else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD" and status != 204:
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_DELETE = _handle

    with serving(Handler) as address:
        contract.url = address
        yield contract
    catalog.close()
