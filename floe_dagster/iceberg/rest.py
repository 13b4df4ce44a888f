"""Iceberg REST catalogs, Polaris among them: client credentials, timeouts, retries.

PyIceberg's own client fetches its token once and waits for answers for ever. This one renews the token before it
expires, bounds every wait, and repeats what is safe to repeat: reads after any failure, writes only where the server
has not begun (no connection, 429).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.rest.auth import AuthManager, AuthManagerAdapter
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from floe_dagster import client_credentials
from floe_dagster.iceberg.errors import CatalogError, NotUsableError
from floe_dagster.schemas.addresses import is_loopback

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
ATTEMPTS = 6
BACKOFF_SECONDS = 0.25
OAUTH2 = "plugins.catalog.config.oauth2"


class Repeat(Retry):
    """Repeats reads after any failure, writes where the server has not begun."""

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        """Say whether an answer is no answer yet."""
        if status_code == 429:
            return bool(self.total)
        return super().is_retry(method, status_code, has_retry_after)


def bounded_session(answer_seconds: float = ANSWER_SECONDS, *, repeats: int = ATTEMPTS - 1) -> Session:
    """Return a session whose requests end: each wait is bounded, and so are the repeats.

    Args:
        answer_seconds: How long one answer may take.
        repeats: How often a request is repeated at most, with a pause that doubles from 0.25 s.
    """
    retry = Repeat(
        total=repeats,
        backoff_factor=BACKOFF_SECONDS,
        backoff_jitter=BACKOFF_SECONDS,
        backoff_max=8.0,
        status_forcelist=(500, 502, 503, 504),
        allowed_methods=("GET", "HEAD"),
        raise_on_status=False,
    )
    session = Session()
    adapter = _BoundedAdapter(answer_seconds, max_retries=retry, pool_maxsize=16)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class _BoundedAdapter(HTTPAdapter):
    def __init__(self, answer_seconds: float, **options: Any) -> None:
        self._timeout = (min(CONNECT_SECONDS, answer_seconds), answer_seconds)
        self.repeated = 0
        super().__init__(**options)

    def send(self, request: PreparedRequest, *arguments: Any, **options: Any) -> Response:
        if options.get("timeout") is None:
            options["timeout"] = self._timeout
        answer = super().send(request, *arguments, **options)
        self.repeated += len(getattr(getattr(answer.raw, "retries", None), "history", ()))
        return answer


class ClientCredentials(AuthManager):
    """OAuth2 client credentials whose token is renewed before it expires.

    Args:
        token_url: Where tokens are issued.
        client_id: No secret.
        client_secret: Never shown.
        scope: OAuth2 scope.
        answer_seconds: How long the answer may take.
    """

    def __init__(
        self, token_url: str, client_id: str, client_secret: str, scope: str, answer_seconds: float
    ) -> None:
        self._tokens = client_credentials.ClientCredentials(
            token_url, client_id, client_secret, scope, field=OAUTH2, answer_seconds=answer_seconds
        )

    def __repr__(self) -> str:
        return repr(self._tokens)

    @property
    def refreshes(self) -> int:
        """How many tokens were issued."""
        return self._tokens.issued

    def auth_header(self) -> str:
        """Return the header of a token that is still good.

        Raises:
            NotUsableError: The client is refused.
            CatalogError: No token is to be had.
        """
        try:
            return f"Bearer {self._tokens.token()}"
        except client_credentials.TokenError as error:
            raise (CatalogError if error.transient else NotUsableError)(str(error)) from None

    def renew(self) -> None:
        """Forget the token: the server has refused it."""
        self._tokens.forget()


class _BearerToken(AuthManager):
    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def auth_header(self) -> str:
        return self._header


class BoundedRestCatalog(RestCatalog):
    """An Iceberg REST catalog whose requests end and whose token never runs out.

    Args:
        name: For messages.
        auth: Who asks; None where the catalog asks nobody.
        answer_seconds: How long one answer may take.
        properties: As PyIceberg's.
    """

    def __init__(
        self, name: str, *, auth: AuthManager | None, answer_seconds: float, **properties: str
    ) -> None:
        self._floe_auth = auth
        self._answer_seconds = answer_seconds
        super().__init__(name, **properties)

    def request_counts(self) -> dict[str, int]:
        """Return how many tokens were issued and how many requests were repeated so far."""
        refreshes = self._floe_auth.refreshes if isinstance(self._floe_auth, ClientCredentials) else 0
        adapters = {id(adapter): adapter for adapter in self._session.adapters.values()}.values()
        repeated = sum(getattr(adapter, "repeated", 0) for adapter in adapters)
        return {"token_refreshes": refreshes, "retries": repeated}

    def _create_session(self) -> Session:
        session = bounded_session(self._answer_seconds)
        self._config_headers(session)
        self._auth_manager = self._floe_auth
        if self._floe_auth is not None:
            session.auth = AuthManagerAdapter(self._floe_auth)
        # What ~/.netrc or a proxy variable says must not replace the token.
        session.trust_env = not is_loopback(urlsplit(self.uri).hostname)
        return session

    def _refresh_token(self) -> None:
        if isinstance(self._floe_auth, ClientCredentials):
            self._floe_auth.renew()

    def _response_to_staged_table(self, identifier_tuple: Any, table_response: Any) -> Any:
        # A table that does not exist yet has no metadata file whose place would choose among the credentials.
        if table_response.metadata_location is None and table_response.storage_credentials:
            vended = self._resolve_storage_credentials(
                table_response.storage_credentials, table_response.metadata.location
            )
            table_response.config = {**table_response.config, **vended}
        return super()._response_to_staged_table(identifier_tuple, table_response)


def rest_catalog(config: Mapping[str, Any], file_io: Mapping[str, str]) -> BoundedRestCatalog:
    """Open a REST catalog.

    Args:
        config: Settings of `plugins.catalog`, secrets resolved.
        file_io: PyIceberg's properties for the storage.

    Raises:
        NotUsableError: The catalog refuses the credentials, or does not know the warehouse.
        CatalogError: It does not answer.
    """
    from pyiceberg.exceptions import RESTError

    from floe_dagster.iceberg.errors import catalog_error

    uri = str(config["uri"]).rstrip("/")
    answer_seconds = float(config.get("timeout_seconds") or ANSWER_SECONDS)
    auth: AuthManager | None = None
    oauth2 = config.get("oauth2")
    if oauth2:
        auth = ClientCredentials(
            oauth2.get("token_url") or f"{uri}/v1/oauth/tokens",
            oauth2["client_id"],
            oauth2["client_secret"],
            oauth2.get("scope") or "PRINCIPAL_ROLE:ALL",
            answer_seconds,
        )
    elif config.get("token"):
        auth = _BearerToken(str(config["token"]))
    properties = {"uri": uri, "warehouse": str(config["warehouse"]), **file_io}
    if config.get("credential_vending") is False:
        properties["header.X-Iceberg-Access-Delegation"] = ""
    try:
        return BoundedRestCatalog("floe", auth=auth, answer_seconds=answer_seconds, **properties)
    except RESTError as error:
        if "NotFound" in str(error) or "404" in str(error):
            raise NotUsableError(
                f"the catalog at {uri} knows no warehouse {config['warehouse']!r}; check "
                "plugins.catalog.config.warehouse, or run `floe-dagster platform bootstrap`"
            ) from error
        raise catalog_error(error, f"the catalog at {uri} cannot be opened") from error
    except (OSError, ValueError) as error:
        raise catalog_error(error, "the catalog cannot be opened") from error
