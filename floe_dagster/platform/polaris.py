"""A client of Polaris' management API (1.4): as much of it as bootstrapping needs.

Source: `polaris-management-service.yml` of Apache Polaris 1.4.1. PyPI's `apache-polaris` would serve, too; it pins
pydantic below the version that this project uses.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from floe_dagster.bounded_http import bounded_session
from floe_dagster.iceberg.errors import CatalogError, NotUsableError
from floe_dagster.iceberg.rest import ClientCredentialsAuth
from floe_dagster.platform.waiting import PlatformError
from floe_dagster.schemas.catalog_types.oauth2 import DEFAULT_SCOPE

Json = dict[str, Any]


class PolarisManagement:
    """Polaris' management API, as its root principal.

    Args:
        url: `https://HOST/api/management/v1`.
        token_url: Where tokens are issued.
        client_id: Of a principal that may manage.
        client_secret: Its secret.
        answer_seconds: How long one answer may take.
    """

    def __init__(
        self, url: str, token_url: str, client_id: str, client_secret: str, answer_seconds: float = 30.0
    ) -> None:
        self.url = url.rstrip("/")
        self._auth = ClientCredentialsAuth(token_url, client_id, client_secret, DEFAULT_SCOPE, answer_seconds)
        self._session = bounded_session(answer_seconds)

    def get(self, *path: str) -> Json | None:
        """Return what is at a path; None where there is nothing."""
        return self._call("GET", path)

    def names(self, *path: str, key: str) -> set[str]:
        """Return the names in a list; empty where its parent does not exist."""
        return {str(entry["name"]) for entry in (self._call("GET", path) or {}).get(key, ())}

    def create(self, *path: str, body: Json) -> Json:
        """POST; what exists already (409) counts as made."""
        return self._call("POST", path, body, fine=(409,)) or {}

    def put(self, *path: str, body: Json) -> Json:
        """PUT; what exists already (409) counts as made."""
        return self._call("PUT", path, body, fine=(409,)) or {}

    def reset(self, principal: str, client_id: str, client_secret: str) -> tuple[str, str] | None:
        """Give a principal the credentials of the manifest.

        Returns:
            The credentials in force; None where the server makes its own only.
        """
        body = {"clientId": client_id, "clientSecret": client_secret}
        answer = self._call("POST", ("principals", principal, "reset"), body, fine=(400, 403, 404, 405, 501))
        return _credentials(answer)

    def new_secret(self, principal: str) -> tuple[str, str] | None:
        """Have the server make new credentials for a principal."""
        return _credentials(self._call("POST", ("principals", principal, "reset"), {}, fine=(403, 404, 405)))

    def _call(
        self, method: str, path: tuple[str, ...], body: Json | None = None, fine: tuple[int, ...] = ()
    ) -> Json | None:
        from requests import RequestException

        from floe_dagster.iceberg.errors import catalog_error

        url = "/".join((self.url, *(quote(part, safe="") for part in path)))
        try:
            for attempt in (0, 1):
                answer = self._session.request(
                    method, url, json=body, headers={"Authorization": self._auth.auth_header()}
                )
                if answer.status_code != 401 or attempt:
                    break
                self._auth.renew()
        except RequestException as error:
            raise PlatformError(str(catalog_error(error, "Polaris' management API"))) from None
        except CatalogError as error:
            hint = " (the root credentials)" if isinstance(error, NotUsableError) else ""
            raise PlatformError(f"{error}{hint}") from None
        if (answer.status_code == 404 and method == "GET") or answer.status_code in fine:
            return None
        try:
            said = answer.json() if answer.content else {}
        except ValueError:
            said = {}
        if answer.status_code >= 400:
            detail = (said.get("error") or {}) if isinstance(said, dict) else {}
            message = detail.get("message") if isinstance(detail, dict) else None
            raise PlatformError(
                f"Polaris refuses {method} {url}: {message or f'HTTP {answer.status_code}'}"
                + (
                    ". The principal of POLARIS_ROOT_CLIENT_ID has to be one that may manage (service_admin)"
                    if answer.status_code == 403
                    else ""
                )
            )
        return said if isinstance(said, dict) else {}


def _credentials(answer: Json | None) -> tuple[str, str] | None:
    found = (answer or {}).get("credentials") or {}
    if not found.get("clientId") or not found.get("clientSecret"):
        return None
    return str(found["clientId"]), str(found["clientSecret"])


def credentials_of(answer: Json) -> tuple[str, str] | None:
    """Return client id and secret of the answer to making a principal."""
    return _credentials(answer)
