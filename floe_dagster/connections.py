"""What every connection to a service needs: why it does not answer, and who asks."""

from __future__ import annotations

from typing import Any

_REASONS = (
    ("Connection refused", "nothing listens there"),
    ("resolve", "the host name does not resolve"),
    ("Name or service not known", "the host name does not resolve"),
    ("DNS", "the host name does not resolve"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted"),
    ("certificate verify failed", "its certificate is not trusted"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS there"),
    ("timed out", "no answer in time"),
    ("Connection reset", "the connection was reset"),
    ("Connection aborted", "the connection was cut"),
    ("Remote end closed", "the connection was cut"),
)


def connection_reason(error: BaseException | str) -> str | None:
    """Return in a few words why nobody answers; None where it cannot be told.

    Args:
        error: Of a client library, or what it says.
    """
    text = str(error)
    return next((said for sign, said in _REASONS if sign in text), None)


def as_it_is(request: Any) -> Any:
    """Authenticate nobody: where a session of requests has no authentication, it takes what stands in ~/.netrc."""
    return request
