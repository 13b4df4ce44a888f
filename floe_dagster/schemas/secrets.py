"""Which fields bear secrets, and how a reference to one looks."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import unquote

from pydantic import BeforeValidator

from floe_dagster.schemas.base import SecretReference

_SECRET_KEY = re.compile(
    r"(?:^|_)(?:client_secret|secret|password|passwd|token|api_?key|secret_(?:access_)?key|secret_key|"
    r"private_key|access_key_secret|credential)$"
)
REFERENCE_KEYS = ("env", "secret", "key")
"""What a reference to a secret says: the name of a variable, or the name of a Kubernetes Secret and of a key in it."""
_NOT_SECRET = frozenset({"token_url", "token_uri"})
_USER = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<who>[^/\s@]+)@", re.IGNORECASE)
_QUERY = re.compile(r"(?P<before>[?&])(?P<name>[^=&#?\s]+)=(?P<value>[^&#\s]*)")

Secret = Annotated[SecretReference, BeforeValidator(SecretReference.parse)]
"""A field that takes a reference to a secret only."""
_CREDENTIALS = re.compile(r"[^\s/'\"@]+:[^\s/'\"]*@")


def is_secret_key(name: str) -> bool:
    """Tell whether a field of this name (snake_case or camelCase) bears a secret."""
    snake = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower().replace("-", "_")
    return snake not in _NOT_SECRET and _SECRET_KEY.search(snake) is not None


def is_reference(value: Any) -> bool:
    """Tell whether `value` is a reference: `{env: NAME}`, `{secret: NAME, key: KEY}` or `${NAME}`."""
    if isinstance(value, dict):
        return set(value) <= set(REFERENCE_KEYS)
    return isinstance(value, str) and re.fullmatch(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}", value) is not None


def without_url_credentials(value: str) -> str:
    """Return a text without what a URL in it carries of secrets: a password, a token in place of a user, a key in its query.

    A reference stays, and so does a user alone where that is part of the address (`abfss://container@account`,
    `postgresql://user@host`).
    """
    return _QUERY.sub(_hidden_parameter, _USER.sub(_hidden_user, value))


def without_credentials(shown: str) -> str:
    """Return a text, to be shown alone, without user and password in front of an address, also where it names no scheme."""
    return _CREDENTIALS.sub("…@", shown)


def _hidden_user(found: re.Match[str]) -> str:
    user, colon, password = found.group("who").partition(":")
    bears = password if colon else user if found.group("scheme").lower() in ("http", "https") else ""
    return f"{found.group('scheme')}://" if bears and not bears.startswith("${") else found.group()


def _hidden_parameter(found: re.Match[str]) -> str:
    value = found.group("value")
    is_literal = is_secret_key(unquote(found.group("name"))) and value and not value.startswith("${")
    return found.group("before") if is_literal else found.group()
