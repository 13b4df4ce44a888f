"""Holds back what needs bucket or catalog until they are there: an init container of a pod, a step of a pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from floe_dagster.credentials import MissingCredentialError
from floe_dagster.platform.catalog_server import server_of
from floe_dagster.platform.object_store import STATE_PREFIX, WAREHOUSE_PREFIX, ObjectStore, own_keys
from floe_dagster.platform.waiting import PlatformError, wait_for
from floe_dagster.schemas.manifest import PlatformManifest
from floe_dagster.schemas.storage_types import STORAGE_TYPES

Part = Literal["storage", "state", "catalog"]
PARTS: tuple[Part, ...] = ("storage", "catalog")
"""What a run needs. `state` is for who has the keys of Dagster's state alone: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY."""


def wait_until_ready(
    manifest: PlatformManifest,
    *,
    parts: tuple[Part, ...] = PARTS,
    seconds: float,
    environ: Mapping[str, str],
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Wait until the bucket exists and may be used, and until the catalog answers.

    Nothing is made or changed. Embedded catalogs and local storage are always ready.

    Args:
        manifest: Merged over its parents.
        parts: What is waited for.
        seconds: How long at most, for all of it.
        environ: Where secrets are looked up.
        say: Called with a line for each thing that is ready.

    Raises:
        PlatformError: It was not ready in time, or a secret is not set.
    """
    deadline = time.monotonic() + seconds
    storage, catalog = manifest.plugins.storage, manifest.plugins.catalog
    if storage is not None and STORAGE_TYPES[storage.type].is_shared:
        for part, prefix in (("storage", WAREHOUSE_PREFIX), ("state", STATE_PREFIX)):
            if part in parts:
                store = _store(storage, part, environ)
                _wait_for_bucket(store, prefix, deadline)
                say(f"bucket {store.bucket} at {store.address} exists and answers")
    server = server_of(catalog.type, catalog.config.model_dump()) if catalog is not None else None
    if "catalog" in parts and server is not None:
        server.wait(max(deadline - time.monotonic(), 1.0))
        say(f"the catalog at {server.address} answers")


def _store(storage: Any, part: str, environ: Mapping[str, str]) -> ObjectStore:
    try:
        keys = (
            (environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY"))
            if part == "state"
            else own_keys(storage, environ)
        )
    except MissingCredentialError as error:
        raise PlatformError(str(error)) from None
    return ObjectStore(storage.config.model_dump(), *keys)


def _wait_for_bucket(store: ObjectStore, prefix: str, deadline: float) -> None:
    wait_for_store(store, deadline - time.monotonic())
    wait_for(
        f"bucket {store.bucket}",
        store.address,
        lambda: store.is_usable(prefix),
        max(deadline - time.monotonic(), 1.0),
        not_ready="it does not exist, or these keys may not list it",
        fix="See what `floe-dagster platform bootstrap` said, which makes bucket and user; or wait longer with --wait",
    )


def wait_for_store(store: ObjectStore, seconds: float) -> None:
    """Wait until a store answers, whoever asks; see `wait_for`."""
    wait_for("the store", store.address, store.answers, seconds)
