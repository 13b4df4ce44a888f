"""Iceberg REST catalogs, Polaris among them: client credentials, timeouts, retries.

PyIceberg's own client fetches its token once and waits for answers for ever. This one renews the token before it
expires, bounds every wait, and repeats what is safe to repeat: reads after any failure, writes only where the server
has not begun (no connection, 429).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import ValidationError
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.rest.auth import AUTH_MANAGER, AuthManager, AuthManagerAdapter
from pyiceberg.exceptions import CommitStateUnknownException
from pyiceberg.io import load_file_io
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.typedef import EMPTY_DICT, Properties

from floe_dagster import client_credentials
from floe_dagster.bounded_http import ANSWER_SECONDS, bounded_session
from floe_dagster.faults import validation_problems
from floe_dagster.iceberg.errors import CatalogError, NotUsableError
from floe_dagster.iceberg.vended import VendedFileIO, folder, layered, longest_prefix
from floe_dagster.schemas.addresses import is_loopback
from floe_dagster.schemas.catalog_types.oauth2 import oauth2_scope

if TYPE_CHECKING:
    from pyiceberg.catalog.rest import TableResponse
    from pyiceberg.catalog.rest.scan_planning import StorageCredential
    from pyiceberg.io import FileIO
    from pyiceberg.table import CommitTableResponse, CreateTableTransaction, StagedTable, Table
    from pyiceberg.typedef import Identifier
    from requests import Session

    from floe_dagster.home import FloeHome
    from floe_dagster.iceberg.storage import Storage

OAUTH2 = "plugins.catalog.config.oauth2"


class ClientCredentialsAuth(AuthManager):
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
        self._tokens = client_credentials.TokenSource(
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

    # What an answer is read with, also before the server was asked for its settings.
    properties: Properties = EMPTY_DICT
    _auth_manager: AuthManager | None = None
    _floe_auth: AuthManager | None = None

    def __init__(
        self, name: str, *, auth: AuthManager | None, answer_seconds: float, **properties: str
    ) -> None:
        self._floe_auth = auth
        self._answer_seconds = answer_seconds
        super().__init__(name, **properties)

    def request_counts(self) -> dict[str, int]:
        """Return how many tokens were issued and how many requests were repeated so far."""
        refreshes = self._floe_auth.refreshes if isinstance(self._floe_auth, ClientCredentialsAuth) else 0
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
        if isinstance(self._floe_auth, ClientCredentialsAuth):
            self._floe_auth.renew()

    # PyIceberg has no public place to say how the files of a table are opened; the tests of vended keys fail where these two
    # change. What the server answers stays as it is: PyIceberg's models are frozen.
    def _response_to_table(self, identifier_tuple: tuple[str, ...], table_response: TableResponse) -> Table:
        table = super()._response_to_table(identifier_tuple, table_response)
        table.io = self._io_of(table_response)
        return table

    def _response_to_staged_table(
        self, identifier_tuple: tuple[str, ...], table_response: TableResponse
    ) -> StagedTable:
        table = super()._response_to_staged_table(identifier_tuple, table_response)
        table.io = self._io_of(table_response)
        return table

    def _io_of(self, response: TableResponse) -> FileIO:
        """Return how the files of a table are opened: with the keys that the server gives, where it gives some."""
        location, credentials = response.metadata.location, response.storage_credentials

        def properties(credential: StorageCredential | None) -> dict[str, Any]:
            keys = credential.config if credential is not None else {}
            found = layered(self.properties, response.metadata.properties, response.config, keys)
            return found if self._floe_auth is None else found | {AUTH_MANAGER: self._floe_auth}

        io = load_file_io(properties(longest_prefix(credentials, folder(location))), location)
        # Another implementation is one that somebody has asked for; it has one set of keys.
        return (
            VendedFileIO(location, credentials, properties)
            if type(io) is PyArrowFileIO and credentials
            else io
        )

    def load_table(self, identifier: str | Identifier) -> Table:
        with _understood():
            loaded: Table = super().load_table(identifier)
        return loaded

    def create_table(self, *arguments: Any, **options: Any) -> Table:
        with _understood():
            made: Table = super().create_table(*arguments, **options)
        return made

    def create_table_transaction(self, *arguments: Any, **options: Any) -> CreateTableTransaction:
        with _understood():
            made: CreateTableTransaction = super().create_table_transaction(*arguments, **options)
        return made

    def register_table(self, *arguments: Any, **options: Any) -> Table:
        with _understood():
            registered: Table = super().register_table(*arguments, **options)
        return registered

    def commit_table(self, *arguments: Any, **options: Any) -> CommitTableResponse:
        try:
            with _understood():
                answer: CommitTableResponse = super().commit_table(*arguments, **options)
        except AnswerError as error:
            # It was taken, or it was not: who sent it looks.
            raise CommitStateUnknownException(str(error)) from None
        return answer


class AnswerError(NotUsableError):
    """The catalog answers what the protocol does not allow."""


@contextmanager
def _understood() -> Iterator[None]:
    """Put into words what the server answers against the protocol, without what it answers: keys are among it."""
    try:
        yield
    except ValidationError as error:
        raise AnswerError(
            f"the catalog's answer is not what the Iceberg REST protocol says of {error.title}: {validation_problems(error)}",
            cause="server",
        ) from None


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
        auth = ClientCredentialsAuth(
            oauth2.get("token_url") or f"{uri}/v1/oauth/tokens",
            oauth2["client_id"],
            oauth2["client_secret"],
            oauth2_scope(oauth2),
            answer_seconds,
        )
    elif config.get("token"):
        auth = _BearerToken(str(config["token"]))
    properties = {"uri": uri, "warehouse": str(config["warehouse"]), **file_io}
    if config.get("credential_vending") is False:
        properties["header.X-Iceberg-Access-Delegation"] = ""
    try:
        with _understood():
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


def open_rest(
    config: Mapping[str, Any], settings: Mapping[str, Any], storage: Storage, home: FloeHome
) -> BoundedRestCatalog:
    """Open a catalog of type rest or polaris; see `CatalogType.opener`, and `rest_catalog` for what it raises."""
    return rest_catalog(
        config, storage.file_io(settings, vended=config.get("credential_vending") is not False)
    )
