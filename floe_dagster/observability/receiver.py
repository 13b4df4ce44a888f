"""Who takes the records: an address, how it is spoken to, the secrets and authorities that go with it."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from floe_dagster.connections import connection_reason
from floe_dagster.credentials import MissingCredentialError, resolve
from floe_dagster.observability.answers import ReceiverAwayError

_HEADER_NAMES = {
    "http": re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"),
    "grpc": re.compile(r"[0-9A-Za-z_.-]+"),
}
_HOST = re.compile(r"(?:\[[^\]]*\]?|[^:\[\]]*)(?::\d*)?")


@dataclass(frozen=True, slots=True)
class Receiver:
    """Who takes the records.

    Args:
        url: Its address.
        protocol: grpc or http.
        headers: Sent along; secrets as references, looked up when something is sent.
        bearer: Reference to a token that is sent along.
        certificate_file: PEM file with the authorities to trust; the system's own when None.
        answer_seconds: How long one answer may take.
        field: The setting in the manifest that names it.
    """

    url: str
    protocol: str = "http"
    headers: Mapping[str, Any] = field(default_factory=dict)
    bearer: Any = None
    certificate_file: str | None = None
    answer_seconds: float = 30.0
    field: str = "observability"

    def resolved_headers(self) -> dict[str, str]:
        """Return the headers with their secrets.

        Raises:
            ReceiverAwayError: A reference names something that is not set.
        """
        try:
            found = {
                name: resolve(value, f"{self.field} ({name})") or "" for name, value in self.headers.items()
            }
            if self.bearer is not None:
                found["Authorization"] = f"Bearer {resolve(self.bearer, f'{self.field} (api_key)')}"
        except MissingCredentialError as error:
            raise ReceiverAwayError(str(error)) from None
        for name, value in found.items():
            if not _HEADER_NAMES["grpc" if self.protocol == "grpc" else "http"].fullmatch(name):
                raise ReceiverAwayError(
                    f"the header {name!r} cannot be sent: a name holds letters, digits, - and _ only"
                )
            if value[:1].isspace():
                raise ReceiverAwayError(f"the header {name} cannot be sent: its value begins with a space")
            if not (value.isascii() and value.isprintable()):
                raise ReceiverAwayError(
                    f"the header {name} cannot be sent: its value holds a line end or other characters than ASCII"
                )
        return found

    def away(self, error: BaseException | str) -> ReceiverAwayError:
        """Return the error that says in a few words why it does not answer."""
        reason = connection_reason(error) or (
            type(error).__name__ if isinstance(error, BaseException) else error
        )
        return ReceiverAwayError(f"{self.shown} does not answer: {reason}")

    @property
    def shown(self) -> str:
        """The address without user information, and without a query, which may hold a key."""
        scheme, slashes, rest = self.url.partition("://") if "://" in self.url else ("", "", self.url)
        host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
        host = host.rpartition("@")[2]
        if "@" in rest and not _HOST.fullmatch(host):
            # A password with a slash or a question mark in it.
            return f"{scheme}{slashes}{rest.rpartition('@')[2].partition('?')[0]}"
        return f"{scheme}{slashes}{host}{slash}{path}"

    def is_no_address(self) -> ReceiverAwayError:
        """Return the error that says that nobody can be asked there."""
        return ReceiverAwayError(
            f"{self.shown} is no address: http://host:port or https://host:port is asked for"
        )

    def address(self) -> SplitResult:
        """Return the parts of the address, of which host and port may be host:port alone.

        Raises:
            ReceiverAwayError: It is none.
        """
        try:
            parts = urlsplit(self.url if "://" in self.url else f"http://{self.url}")
            if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
                return parts
        except ValueError:
            pass
        raise self.is_no_address()

    def authorities(self) -> bytes | None:
        """Return the content of the certificate file; None where the system's own authorities count.

        Raises:
            ReceiverAwayError: It cannot be read, or holds no certificates.
        """
        if not self.certificate_file:
            return None
        try:
            with open(self.certificate_file, "rb") as file:
                content = file.read()
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=self.certificate_file)
            return content
        except ssl.SSLError:
            raise ReceiverAwayError(
                f"certificate_file {self.certificate_file} is not a PEM file with certificates"
            ) from None
        except OSError as error:
            raise ReceiverAwayError(
                f"the certificate file {self.certificate_file} cannot be read: {error.strerror}"
            ) from None
