"""Which fields bear secrets, and how a reference to one looks."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

from floe_dagster.schemas.base import SecretReference

_SECRET_KEY = re.compile(
    r"(?:^|_)(?:client_secret|secret|password|passwd|token|api_?key|secret_(?:access_)?key|secret_key|"
    r"private_key|access_key_secret|credential)$"
)
_NOT_SECRET = frozenset({"token_url", "token_uri"})
_URL_CREDENTIALS = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:([^@\s/]+)@", re.IGNORECASE)

Secret = Annotated[SecretReference, BeforeValidator(SecretReference.parse)]
"""A field that takes a reference to a secret only."""


def is_secret_key(name: str) -> bool:
    """Tell whether a field of this name (snake_case or camelCase) bears a secret."""
    snake = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower().replace("-", "_")
    return snake not in _NOT_SECRET and _SECRET_KEY.search(snake) is not None


def is_reference(value: Any) -> bool:
    """Tell whether `value` is a reference: `{env: NAME}`, `{secret: NAME, key: KEY}` or `${NAME}`."""
    if isinstance(value, dict):
        return set(value) <= {"env", "secret", "key"}
    return isinstance(value, str) and re.fullmatch(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}", value) is not None


def has_url_credentials(value: Any) -> bool:
    """Tell whether a URL carries a password that is no reference."""
    if not isinstance(value, str):
        return False
    found = _URL_CREDENTIALS.search(value)
    return found is not None and not found.group(1).startswith("${")
