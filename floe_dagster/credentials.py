"""Secrets at run time: a reference becomes its value where it is used, and nowhere before."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from floe_dagster.errors import FloeError

_ENV_STRING = re.compile(r"^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$")


class MissingCredentialError(FloeError, ValueError):
    """A reference names something that is not there; the message says what to set."""


def resolve(value: Any, field: str, environ: Mapping[str, str] | None = None) -> str | None:
    """Return what a setting refers to.

    Args:
        value: A reference (`{env: NAME}`, `${NAME}`), a plain value, or None.
        field: Name of the setting in the manifest, for the error.
        environ: `os.environ` when left out.

    Raises:
        MissingCredentialError: The environment variable is not set, or is empty.
    """
    name = environment_name(value)
    if name is None:
        return None if value is None else str(value)
    found = (os.environ if environ is None else environ).get(name, "")
    if not found:
        origin = ""
        if isinstance(value, Mapping) and value.get("secret"):
            origin = f" (key {value.get('key')!r} of the Kubernetes Secret {value['secret']!r})"
        raise MissingCredentialError(
            f"{field} refers to the environment variable {name}{origin}, which is not set; set it where floe-dagster runs"
        )
    return found


def environment_name(value: Any) -> str | None:
    """Return the environment variable that a reference names; None for anything else."""
    if isinstance(value, Mapping):
        return str(value["env"]) if value.get("env") else None
    found = _ENV_STRING.match(value) if isinstance(value, str) else None
    return found.group(1) if found else None


def kubernetes_references(value: Any) -> Iterator[tuple[str, str, str]]:
    """Yield environment variable, Secret and key of every Kubernetes reference inside a plugin's settings."""
    if isinstance(value, Mapping):
        if value.get("secret") and value.get("key") and value.get("env"):
            yield str(value["env"]), str(value["secret"]), str(value["key"])
            return
        for item in value.values():
            yield from kubernetes_references(item)
    elif isinstance(value, list):
        for item in value:
            yield from kubernetes_references(item)
