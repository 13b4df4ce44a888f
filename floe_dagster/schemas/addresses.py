"""Addresses of services, checked as far as a document can be: a host, and a port that exists."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from floe_dagster.schemas.forms import form

HIGHEST_PORT = 65_535


def is_loopback(host: str | None) -> bool:
    """Tell whether a host is this machine, without asking for its address."""
    name = (host or "").strip("[]")
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _check_address(value: str) -> str:
    address = urlsplit(value if "://" in value else f"//{value}")
    if not address.hostname:
        raise ValueError("names no host")
    try:
        port = address.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError(f"the port must be a number from 1 to {HIGHEST_PORT}")
    return value


Url = Annotated[
    str,
    Field(pattern=form(r"^https?://[^\s]+$", "an address that begins with http:// or https://")),
    AfterValidator(_check_address),
]
"""An http or https URL with a host."""

Endpoint = Annotated[
    str,
    Field(
        pattern=form(
            r"^(https?://[^\s]+|([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5})$",
            "an address that begins with http:// or https://, or a host with its port, such as collector:4317",
        )
    ),
    AfterValidator(_check_address),
]
"""An OTLP endpoint: a URL, or host and port."""


def _check_repository(value: str) -> str:
    try:
        urlsplit(value)
    except ValueError as error:
        raise ValueError(f"is no address: {error}") from None
    return value


Repository = Annotated[str, AfterValidator(_check_repository)]
"""The address of a repository in any form, as long as one can tell whether it is a URL."""
