"""The way to Trino: who asks, over which connection, and why nobody answers.

dbt and we go the same way: dbt's profile refers to `TrinoAccess.environment`, our own questions take its connections.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from floe_dagster.client_credentials import TokenError, TokenSource
from floe_dagster.connections import as_it_is, connection_reason
from floe_dagster.credentials import MissingCredentialError, resolve
from floe_dagster.engines.errors import EngineError
from floe_dagster.schemas.addresses import is_loopback
from floe_dagster.schemas.compute.trino import (
    DEFAULT_RETRIES,
    DEFAULT_USER,
    PASSWORD_VARIABLE,
    TOKEN_VARIABLE,
    port_of,
)

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session
    from trino.dbapi import Connection

FIELD = "plugins.compute.config"
SOURCE = "floe-dagster"
ANSWER_SECONDS = 30.0

_STATUS = re.compile(r"^error (\d{3})\b")


class TrinoAccess:
    """The way to one Trino.

    Args:
        config: `plugins.compute.config` of the artifact, with references to secrets.
        environ: Where they are looked up; `os.environ` when left out.
        field: Where the settings stand in the manifest.

    Raises:
        EngineError: A secret is not set or cannot be sent, or the certificate file is none.
    """

    def __init__(
        self, config: Mapping[str, Any], environ: Mapping[str, str] | None = None, *, field: str = FIELD
    ) -> None:
        self._config = dict(config)
        self._field = field
        self._password: str | None = None
        self._credentials: TokenSource | None = None
        oauth2 = config.get("oauth2")
        try:
            self._password = resolve(config.get("password"), f"{self._field}.password", environ)
            if oauth2:
                self._credentials = TokenSource(
                    oauth2["token_url"],
                    resolve(oauth2["client_id"], f"{self._field}.oauth2.client_id", environ) or "",
                    resolve(oauth2["client_secret"], f"{self._field}.oauth2.client_secret", environ) or "",
                    oauth2.get("scope"),
                    field=f"{field}.oauth2",
                )
        except MissingCredentialError as error:
            raise EngineError(str(error), transient=False) from None
        self._check_password()
        self._check_certificate()

    def __repr__(self) -> str:
        return f"TrinoAccess({self.base_url})"

    @property
    def base_url(self) -> str:
        """Address of the coordinator."""
        scheme = self._config.get("http_scheme") or "http"
        return f"{scheme}://{self._config['host']}:{self._port}"

    @property
    def user(self) -> str | None:
        """Who asks; None where the token says it."""
        return self._config.get("user") or (None if self._credentials else DEFAULT_USER)

    @property
    def environment(self) -> dict[str, str]:
        """What dbt's profile refers to; with a new token, as dbt cannot renew it.

        Raises:
            EngineError: No token is to be had.
        """
        found = {}
        if self._password is not None:
            found[PASSWORD_VARIABLE] = self._password
        if self._credentials is not None:
            found[TOKEN_VARIABLE] = self._token(fresh=True)
        if self._certificate_file:
            # Where only dbt-trino's session knows the certificates, a variable of this name would win.
            found["REQUESTS_CA_BUNDLE"] = self._certificate_file
        return found

    def connect(self, **options: Any) -> Connection:
        """Return a connection of Trino's client; nobody is asked before a cursor executes something.

        Args:
            options: Of `trino.dbapi.connect`, such as `client_tags` or `schema`; `session_properties` come on top of
                the manifest's.
        """
        import trino.dbapi

        properties = {
            **(self._config.get("session_properties") or {}),
            **(options.pop("session_properties", None) or {}),
        }
        settings = {
            "source": SOURCE,
            "catalog": self._config["catalog"],
            "max_attempts": self._attempts,
            "request_timeout": ANSWER_SECONDS,
            **options,
        }
        connection: Connection = trino.dbapi.connect(
            host=self._config["host"],
            port=self._port,
            http_scheme=self._config.get("http_scheme") or "http",
            user=self.user,
            session_properties=properties,
            # It authenticates each request, so that a token is renewed while a query runs. The client repeats itself.
            http_session=self._session(repeats=0),
            **settings,
        )
        return connection

    def session(self) -> Session:
        """Return a session for Trino's own endpoints below `base_url`; every wait in it is bounded."""
        return self._session(repeats=self._attempts - 1)

    def query_url(self, query_id: str) -> str:
        """Return the page of a query in Trino's UI."""
        base = str(self._config.get("web_url") or self.base_url).rstrip("/")
        return f"{base}/ui/query.html?{query_id}"

    def check(self) -> str:
        """Ask Trino who it is, and whether it takes us; return its version.

        Raises:
            EngineError: It does not answer, is no Trino, still starts, or refuses.
        """
        from requests import RequestException

        try:
            with self.session() as session:
                info = session.get(f"{self.base_url}/v1/info", auth=as_it_is)
                version = self._version(info)
                # A statement begins to run when its first page is asked for; this one is taken back before.
                answer = session.post(f"{self.base_url}/v1/statement", data="select 1")
                if answer.status_code != 200:
                    raise self._refused(answer.status_code, answer.text)
                session.delete(str(answer.json()["nextUri"]))
                return version
        except RequestException as error:
            raise self.unreachable(error) from None

    def error(self, error: Exception) -> Exception:
        """Return an error of Trino's client or of requests in words for people; anything else as it is.

        What Trino says of a statement (`TrinoQueryError`) is for the statement's owner, and comes back as it is.
        """
        from requests import RequestException
        from trino import exceptions as trino

        if isinstance(error, trino.TrinoConnectionError | RequestException):
            return self.unreachable(error)
        if isinstance(error, trino.Http502Error | trino.Http503Error | trino.Http504Error):
            return EngineError(f"Trino at {self.base_url} is not ready: {error}", transient=True)
        if isinstance(error, trino.HttpError | trino.OperationalError) and not isinstance(
            error, trino.TrinoQueryError
        ):
            found = _STATUS.match(str(error))
            if found:
                return self._refused(int(found[1]), str(error))
        return error

    def unreachable(self, error: Exception) -> EngineError:
        """Return why nobody answers, with the setting to look at."""
        reason = connection_reason(error) or type(error).__name__
        field, transient = "host and port", True
        if "certificate" in reason:
            field, transient = "certificate_file", False
        elif "TLS" in reason:
            field, transient = "http_scheme", False
        return EngineError(
            f"Trino at {self.base_url} does not answer: {reason}. Check {self._field}.{field}",
            transient=transient,
        )

    def _session(self, *, repeats: int) -> Session:
        from floe_dagster.bounded_http import bounded_session

        session = bounded_session(ANSWER_SECONDS, repeats=repeats)
        session.trust_env = not is_loopback(self._config["host"])
        if self._certificate_file:
            # requests would let REQUESTS_CA_BUNDLE win over what a session trusts.
            session.verify = self._certificate_file
            session.trust_env = False
            session.proxies = self._proxies()
        if self.user:
            session.headers["X-Trino-User"] = self.user
        if self._credentials is not None:
            session.auth = self._show_token
        else:
            session.auth = as_it_is if self._password is None else (self.user or "", self._password)
        return session

    def _version(self, info: Response) -> str:
        try:
            said = info.json() if info.status_code == 200 else None
        except ValueError:
            said = None
        if not isinstance(said, dict) or "nodeVersion" not in said:
            raise EngineError(
                f"what answers at {self.base_url} is no Trino (HTTP {info.status_code}). Check {self._field}.host, port and "
                "http_scheme",
                transient=info.status_code >= 500,
            )
        if said.get("starting"):
            raise EngineError(f"Trino at {self.base_url} is still starting", transient=True)
        version = said["nodeVersion"]
        return str(version.get("version") if isinstance(version, dict) else version)

    @property
    def _port(self) -> int:
        return port_of(self._config)

    @property
    def _attempts(self) -> int:
        return int(self._config.get("retries") or DEFAULT_RETRIES)

    @property
    def _certificate_file(self) -> str | None:
        return self._config.get("certificate_file") or None

    def _proxies(self) -> dict[str, str]:
        from requests.utils import get_environ_proxies

        return {} if is_loopback(self._config["host"]) else dict(get_environ_proxies(self.base_url))

    def _show_token(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token()}"
        return request

    def _token(self, *, fresh: bool = False) -> str:
        assert self._credentials is not None
        try:
            return self._credentials.token(fresh=fresh)
        except TokenError as error:
            raise EngineError(str(error), transient=error.transient) from None

    def _refused(self, status: int, said: str) -> EngineError:
        who = f"user {self.user!r}" if self.user else "the token"
        if status == 401:
            field = "password" if self._password is not None else "oauth2"
            if self._password is None and self._credentials is None:
                return EngineError(
                    f"Trino at {self.base_url} wants to know who asks. Name password or oauth2 in {self._field}",
                    transient=False,
                )
            return EngineError(
                f"Trino at {self.base_url} does not accept {who}. Check user and {field} of {self._field}",
                transient=False,
            )
        if status == 403:
            return EngineError(
                f"Trino at {self.base_url} forbids it to {who}: {_short(said)}. Check {self._field}.user, and the rights that "
                "it has in Trino",
                transient=False,
            )
        return EngineError(
            f"Trino at {self.base_url} answers HTTP {status}: {_short(said)}",
            transient=status >= 500 or status == 429,
        )

    def _check_password(self) -> None:
        if self._password is None:
            return
        try:
            self._password.encode("latin-1")
        except UnicodeEncodeError:
            raise EngineError(
                f"{self._field}.password has a character that cannot be sent: Trino's client takes Latin-1 only",
                transient=False,
            ) from None

    def _check_certificate(self) -> None:
        path = self._certificate_file
        if not path:
            return
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
        except ssl.SSLError:
            raise EngineError(
                f"{self._field}.certificate_file {path} is not a PEM file with certificates", transient=False
            ) from None
        except OSError as error:
            raise EngineError(
                f"{self._field}.certificate_file {path} cannot be read: {error.strerror}", transient=False
            ) from None


def _short(said: str) -> str:
    return " ".join(re.sub(r"^error \d{3}:?|<[^>]*>", " ", said).split())[:300] or "no reason"
