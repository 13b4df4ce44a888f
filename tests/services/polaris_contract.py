"""A server of Polaris' management API that keeps state and holds every request and answer to the published document."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest
import yaml

SPECIFICATION = "openapi/polaris-management-service-1.4.1.yml"
PREFIX = "/api/management/v1"


def specification() -> Any:
    """Return the API document, ready to validate with.

    FLOE_SPECS names the folder that holds it.
    """
    from openapi_core import OpenAPI

    folder = os.environ.get("FLOE_SPECS", "")
    path = Path(folder) / SPECIFICATION
    if not folder or not path.is_file():
        pytest.fail(
            f"FLOE_SPECS has to name a folder with {SPECIFICATION}: `spec/` of github.com/apache/polaris at 1.4.1"
        )
    # Through JSON, because status codes are numbers in YAML and text in OpenAPI.
    document = json.loads(json.dumps(yaml.safe_load(path.read_text())))
    document["servers"] = [{"url": "/"}]
    return OpenAPI.from_dict(document)


class PolarisContract:
    """Polaris as its documents describe it.

    Args:
        resets: What `POST /principals/{name}/reset` does with credentials it is given: take them, make its own, or
            refuse.
    """

    def __init__(self, resets: str = "take") -> None:
        self.resets = resets
        self.api = specification()
        self.violations: list[str] = []
        self.calls: list[tuple[str, str]] = []
        self.fail_at: str | None = None
        self.catalogs: dict[str, Any] = {}
        self.principals: dict[str, dict[str, Any]] = {}
        self.principal_roles: set[str] = set()
        self.assigned: dict[str, set[str]] = {}
        self.catalog_roles: dict[str, set[str]] = {}
        self.grants: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.given: dict[tuple[str, str], set[str]] = {}
        self.namespaces: set[str] = set()
        self.root = ("root", secrets.token_hex(8))
        self.tokens: dict[str, str] = {}
        self._lock = threading.RLock()
        contract = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None:
                pass

            def _handle(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with contract._lock:
                    status, answer = contract._serve(self.command, self.path, dict(self.headers), body)
                content = b"" if answer is None else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        path = path.partition("?")[0]
        self.calls.append((method, path))
        if path.startswith("/api/catalog/"):
            return self._catalog_api(method, path.removeprefix("/api/catalog/v1"), headers, body)
        if not path.startswith(PREFIX):
            return 404, _error("not here")
        principal = self.tokens.get(headers.get("Authorization", "").removeprefix("Bearer "))
        if principal is None:
            return 401, _error("no token")
        if self.fail_at and self.fail_at in path and method != "GET":
            return 500, _error("injected")
        parts = [unquote(part) for part in path.removeprefix(PREFIX).strip("/").split("/")]
        if principal != "root":
            return 403, _error("may not manage")
        self._validate(method, path, body)
        status, answer = self._manage(method, parts, json.loads(body) if body else {})
        self._validate(method, path, body, status, answer)
        return status, answer

    def _validate(
        self, method: str, path: str, body: bytes, status: int | None = None, answer: Any = None
    ) -> None:
        from openapi_core.testing import MockRequest, MockResponse

        request = MockRequest(
            "http://localhost",
            method.lower(),
            path.removeprefix(PREFIX),
            data=body or None,
            headers={"Authorization": "Bearer x"},
        )
        try:
            if status is None:
                self.api.validate_request(request)
            elif status < 400 and answer is not None:
                self.api.validate_response(request, MockResponse(json.dumps(answer).encode(), status))
        except Exception as error:
            self.violations.append(f"{method} {path} {status or ''}: {error} {error.__cause__!r}"[:500])

    def _catalog_api(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        if path == "/oauth/tokens":
            form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            asked = (form.get("client_id"), form.get("client_secret"))
            name = "root" if asked == self.root else None
            for principal, entry in self.principals.items():
                if (entry["clientId"], entry["secret"]) == asked:
                    name = principal
            if name is None:
                return 401, {
                    "error": "unauthorized_client",
                    "error_description": "The client is not authorized",
                }
            if form.get("scope") != "PRINCIPAL_ROLE:ALL":
                return 400, {"error": "invalid_scope", "error_description": "scope"}
            token = secrets.token_hex(8)
            self.tokens[token] = name
            return 200, {"access_token": token, "token_type": "bearer", "expires_in": 3600}
        if headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return 401, _error("no token")
        if path == "/config":
            return 200, {"defaults": {}, "overrides": {"prefix": "floe"}}
        namespace = path.rpartition("/namespaces/")[2]
        if method == "POST" and path.endswith("/namespaces"):
            self.namespaces.add(json.loads(body)["namespace"][0])
            return 200, {"namespace": json.loads(body)["namespace"], "properties": {}}
        return (204 if namespace in self.namespaces else 404), None

    def _manage(self, method: str, parts: list[str], body: dict[str, Any]) -> tuple[int, Any]:
        routes: dict[tuple[str, int], Callable[..., tuple[int, Any]]] = {
            ("catalogs", 1): self._on_catalogs,
            ("catalogs", 2): self._on_catalog,
            ("catalogs", 3): self._on_catalog_roles,
            ("catalogs", 5): self._on_grants,
            ("principals", 1): self._on_principals,
            ("principals", 2): self._on_principal,
            ("principals", 3): self._on_principal_detail,
            ("principal-roles", 1): self._on_roles,
            ("principal-roles", 4): self._on_given,
        }
        route = routes.get((parts[0], len(parts)))
        return route(method, parts, body) if route else (404, _error("no such path"))

    def _on_catalogs(self, method: str, parts: list[str], body: dict[str, Any]) -> tuple[int, Any]:
        if method == "GET":
            return 200, {"catalogs": list(self.catalogs.values())}
        catalog = body["catalog"]
        if catalog["name"] in self.catalogs:
            return 409, _error("exists")
        self.catalogs[catalog["name"]] = catalog
        self.catalog_roles[catalog["name"]] = {"catalog_admin"}
        return 201, catalog

    def _on_catalog(self, method: str, parts: list[str], body: dict[str, Any]) -> tuple[int, Any]:
        found = self.catalogs.get(parts[1])
        return (200, found) if found else (404, _error("no such catalog"))

    def _on_catalog_roles(self, method: str, parts: list[str], body: dict[str, Any]) -> tuple[int, Any]:
        roles = self.catalog_roles.get(parts[1])
        if roles is None:
            return 404, _error("no such catalog")
        if method == "GET":
            return 200, {"roles": [{"name": name} for name in sorted(roles)]}
        roles.add(body["catalogRole"]["name"])
        return 201, body["catalogRole"]

    def _on_grants(self, method: str, parts: list[str], body: dict[str, Any]) -> tuple[int, Any]:
        key = (parts[1], parts[3])
        if parts[3] not in self.catalog_roles.get(parts[1], ()):
            return 404, _error("no such catalog role")
        grants = self.grants.setdefault(key, [])
        if method == "GET":
            return 200, {"grants": grants}
        if body["grant"]["type"] == "namespace" and body["grant"]["namespace"][0] not in self.namespaces:
            return 404, _error("no such namespace")
        if body["grant"] in grants:
            self.violations.append("granted twice: Polaris takes seconds to refuse that")
        grants.append(body["grant"])
        return 201, None

    def _on_principals(self, method: str, parts: list[str], body: dict[str, Any]) -> tuple[int, Any]:
        if method == "GET":
            return 200, {
                "principals": [{"name": n, "clientId": e["clientId"]} for n, e in self.principals.items()]
            }
        name = body["principal"]["name"]
        if name in self.principals:
            return 409, _error("exists")
        self.principals[name] = {"clientId": secrets.token_hex(8), "secret": secrets.token_hex(16)}
        return 201, self._with_credentials(name)

    def _on_principal(self, method: str, parts: list[str], body: dict[str, Any]) -> tuple[int, Any]:
        found = self.principals.get(parts[1])
        if found is None:
            return 404, _error("no such principal")
        return 200, {"name": parts[1], "clientId": found["clientId"]}

    def _on_principal_detail(self, method: str, parts: list[str], body: dict[str, Any]) -> tuple[int, Any]:
        if parts[1] not in self.principals:
            return 404, _error("no such principal")
        if parts[2] == "reset":
            given = (body.get("clientId"), body.get("clientSecret"))
            if any(given) and self.resets == "refuse":
                return 400, _error("client ids are made by this service")
            entry = self.principals[parts[1]]
            entry["clientId"] = given[0] or entry["clientId"]
            entry["secret"] = given[1] or secrets.token_hex(16)
            return 200, self._with_credentials(parts[1])
        roles = self.assigned.setdefault(parts[1], set())
        if method == "GET":
            return 200, {"roles": [{"name": name} for name in sorted(roles)]}
        roles.add(body["principalRole"]["name"])
        return 201, None

    def _with_credentials(self, name: str) -> Any:
        entry = self.principals[name]
        return {
            "principal": {"name": name, "clientId": entry["clientId"]},
            "credentials": {"clientId": entry["clientId"], "clientSecret": entry["secret"]},
        }

    def _on_roles(self, method: str, parts: list[str], body: dict[str, Any]) -> tuple[int, Any]:
        if method == "GET":
            return 200, {"roles": [{"name": name} for name in sorted(self.principal_roles)]}
        self.principal_roles.add(body["principalRole"]["name"])
        return 201, body["principalRole"]

    def _on_given(self, method: str, parts: list[str], body: dict[str, Any]) -> tuple[int, Any]:
        if parts[1] not in self.principal_roles or parts[3] not in self.catalogs:
            return 404, _error("no such role or catalog")
        roles = self.given.setdefault((parts[1], parts[3]), set())
        if method == "GET":
            return 200, {"roles": [{"name": name} for name in sorted(roles)]}
        roles.add(body["catalogRole"]["name"])
        return 201, None


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "Error", "code": 0}}
