"""OAuth2 client credentials, for Trino and for catalogs: a token that is renewed before it expires."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from typing import Any
from urllib.parse import quote_plus, urlsplit

from floe_dagster.connections import as_it_is, connection_reason
from floe_dagster.errors import FloeError
from floe_dagster.schemas.addresses import is_loopback

ANSWER_SECONDS = 30.0
ATTEMPTS = 6
PAUSE_SECONDS = 0.25
LIFE_SECONDS = 3600.0
"""Of a token whose endpoint does not say."""
RENEW_SECONDS = 60.0
"""A token is renewed so long before it expires, or after four fifths of its life where that is later."""

_TOKEN = re.compile(r"[\x21-\x7e]+")


class TokenError(FloeError):
    """No token is to be had.

    Args:
        message: Why, and which setting to look at.
        transient: Whether trying again may help.
    """

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient


class TokenSource:
    """Fetches tokens.

    Args:
        token_url: Where tokens are issued.
        client_id: No secret.
        client_secret: Never shown.
        scope: OAuth2 scope; the endpoint's own when None.
        field: The settings in the manifest, for messages.
        answer_seconds: How long the whole answer may take.
    """

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str,
        scope: str | None = None,
        *,
        field: str,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._token_url = token_url
        self._client_id = client_id
        self._client_secret = client_secret
        self._scope = scope
        self._field = field
        self._answer_seconds = answer_seconds
        self._token = ""
        self._renew_at = 0.0
        self._lock = threading.Lock()
        self.issued = 0
        """How many tokens were issued."""

    def __repr__(self) -> str:
        return f"TokenSource({self._token_url}, {self._client_id})"

    def token(self, *, fresh: bool = False) -> str:
        """Return a token that is still good.

        Args:
            fresh: Fetch one whose whole life lies before it, for somebody who cannot renew it.

        Raises:
            TokenError: The client is refused, or no token is to be had.
        """
        with self._lock:
            if fresh or not self._token or time.monotonic() >= self._renew_at:
                begun = time.monotonic()
                self._token, life = self._parse(*self._ask())
                self._renew_at = begun + max(life - RENEW_SECONDS, life * 0.8)
                self.issued += 1
            return self._token

    def forget(self) -> None:
        """Fetch another token next time: the server has refused this one."""
        with self._lock:
            self._token = ""

    def _ask(self) -> tuple[int, bytes]:
        """Return status and body of the answer; asking twice harms nobody."""
        for attempt in range(ATTEMPTS):
            is_last = attempt == ATTEMPTS - 1
            try:
                status, body = self._post()
            except TokenError:
                if is_last:
                    raise
            else:
                if is_last or (status < 500 and status != 429):
                    return status, body
            time.sleep(PAUSE_SECONDS * 2**attempt)
        raise AssertionError("unreachable")

    def _post(self) -> tuple[int, bytes]:
        import requests
        from urllib3.exceptions import HTTPError

        from floe_dagster.bounded_http import SMALL_ANSWER_BYTES, read_response

        form = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": self._client_secret,
        }
        if self._scope:
            form["scope"] = self._scope
        options: dict[str, Any] = {
            "auth": as_it_is,
            "timeout": (min(10.0, self._answer_seconds), self._answer_seconds),
            "stream": True,
            # A redirect would show the secret to somebody whom the manifest does not name.
            "allow_redirects": False,
        }
        try:
            with requests.Session() as session:
                session.trust_env = not is_loopback(urlsplit(self._token_url).hostname)
                with session.post(self._token_url, data=form, **options) as answer:
                    body = read_response(answer, seconds=self._answer_seconds, limit=SMALL_ANSWER_BYTES)
                    if body.end == "too late":
                        raise requests.Timeout("timed out")
                    return answer.status_code, body.content
        except (requests.RequestException, HTTPError) as error:
            reason = connection_reason(error) or type(error).__name__
            raise TokenError(
                f"the token endpoint {self._token_url} does not answer: {reason}. Check {self._field}.token_url",
                transient=True,
            ) from None

    def _parse(self, status: int, body: bytes) -> tuple[str, float]:
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            said = {}
        if status in (400, 401, 403):
            raise TokenError(
                f"the token endpoint {self._token_url} refuses client {self._client_id!r}: "
                f"{self._reason(said) or f'HTTP {status}'}. Check client_id, client_secret and scope of {self._field}",
                transient=False,
            )
        if status != 200:
            raise TokenError(
                f"the token endpoint {self._token_url} issues no token: {self._reason(said) or f'HTTP {status}'}. "
                f"Check {self._field}.token_url",
                transient=status >= 500 or status == 429,
            )
        token = said.get("access_token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise TokenError(
                f"the answer of the token endpoint {self._token_url} is no JSON with an access_token. Check "
                f"{self._field}.token_url",
                transient=False,
            )
        return token, life_seconds(said.get("expires_in"))

    def _reason(self, said: dict[str, Any]) -> str:
        found = said.get("error_description") or said.get("error")
        if isinstance(found, dict):
            # As Iceberg's REST catalogs say it.
            found = found.get("message")
        text = found if isinstance(found, str) else ""
        # Some endpoints repeat what they were sent.
        for secret in (self._client_secret, quote_plus(self._client_secret)):
            text = text.replace(secret, "***")
        return "".join(sign for sign in " ".join(text.split()) if sign.isprintable())[:300]


def life_seconds(said: Any) -> float:
    """Return how long a token lives, from the `expires_in` of its answer; some endpoints write the number as text."""
    try:
        seconds = float(said) if isinstance(said, int | float | str) else LIFE_SECONDS
    except (ValueError, OverflowError):
        return LIFE_SECONDS
    return seconds if math.isfinite(seconds) and seconds > 0 else LIFE_SECONDS
