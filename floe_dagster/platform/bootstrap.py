"""Brings an empty catalog and an empty store to a usable state, with the least rights that do.

Every step looks first and makes only what is missing, so it can be run again after any failure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name

from floe_dagster.credentials import MissingCredentialError
from floe_dagster.platform.catalog_server import CatalogRequest, server_of
from floe_dagster.platform.minio_users import MinioUsers
from floe_dagster.platform.object_store import (
    STATE_PREFIX,
    ObjectStore,
    bucket_policy,
    own_keys,
    state_policy,
)
from floe_dagster.platform.readiness import wait_for_store
from floe_dagster.platform.steps import Step, Steps
from floe_dagster.platform.waiting import PlatformError
from floe_dagster.schemas.catalog_types import CATALOG_TYPES
from floe_dagster.schemas.compute import ENGINES
from floe_dagster.schemas.compute.engine import audit_schema
from floe_dagster.schemas.manifest import PlatformManifest
from floe_dagster.schemas.storage_types import STORAGE_TYPES

WAIT_SECONDS = 60.0
STATE_KEYS = ("FLOE_STATE_ACCESS_KEY_ID", "FLOE_STATE_SECRET_ACCESS_KEY")
"""Where the keys of a second user are, of compiled state and logs alone. Not AWS_...: those of a run may be others."""


class Bootstrap:
    """Brings the services of one manifest to a usable state.

    Args:
        manifest: Merged over its parents.
        dry_run: Only look.
        wait_seconds: How long to wait for each service.
        namespaces: Where given, the principal may manage these namespaces alone, not the whole catalog; and where an engine
            that writes the catalog builds them.
        credentials_file: Where credentials go that Polaris itself has made; read by the owner alone.
        management_url: Of Polaris; found from the catalog's URI when left out.
        environ: Where secrets are looked up.
        say: Called with each step as it is done.
    """

    def __init__(
        self,
        manifest: PlatformManifest,
        *,
        dry_run: bool = False,
        wait_seconds: float = WAIT_SECONDS,
        namespaces: tuple[str, ...] = (),
        credentials_file: Path | None = None,
        management_url: str | None = None,
        environ: Mapping[str, str] | None = None,
        say: Callable[[Step], None] = lambda step: None,
    ) -> None:
        self.catalog = manifest.plugins.catalog
        self.storage = manifest.plugins.storage
        self.dry_run = dry_run
        self.wait_seconds = wait_seconds
        self.namespaces = namespaces
        engines = (manifest.plugins.compute, *(manifest.plugins.additional_compute or ()))
        writes_catalog = any(ENGINES[engine.type].writes_catalog for engine in engines if engine is not None)
        built_in = [audit_schema(name) for name in namespaces] if writes_catalog else []
        self.granted = (*namespaces, *built_in)
        self.credentials_file = credentials_file
        self.management_url = management_url
        self.environ = os.environ if environ is None else environ
        self._steps = Steps(dry_run=dry_run, say=say)

    def run(self) -> list[Step]:
        """Do every step.

        Raises:
            PlatformError: A service does not answer or refuses, or a secret is not set; what was done before stands.
        """
        try:
            store = self._store()
            # The bucket first: a catalog may itself wait for it.
            if store is not None:
                wait_for_store(store, self.wait_seconds)
                self._bootstrap_store(store)
            if self.catalog is not None:
                self._bootstrap_catalog(self.catalog.type)
        except MissingCredentialError as error:
            raise PlatformError(str(error)) from None
        return self.steps

    @property
    def steps(self) -> list[Step]:
        """What was done so far."""
        return self._steps.taken

    def _store(self) -> ObjectStore | None:
        if self.storage is None or not STORAGE_TYPES[self.storage.type].is_shared:
            return None
        root = self.root()
        keys = own_keys(self.storage, self.environ) if root is None else root
        return ObjectStore(self.storage.config.model_dump(), *keys)

    def root(self) -> tuple[str, str] | None:
        """Return user and password of who may make the bucket and its users; None where nobody is named."""
        assert self.storage is not None
        names = STORAGE_TYPES[self.storage.type].root or ()
        found = [value for name in names if (value := self.environ.get(name))]
        return (found[0], found[1]) if len(found) == 2 else None

    def _bootstrap_store(self, store: ObjectStore) -> None:
        assert self.storage is not None
        names, root = STORAGE_TYPES[self.storage.type].root, self.root()
        if names is not None and root is None and not store.is_usable():
            raise PlatformError(
                f"the bucket {store.bucket!r} cannot be used with the keys of plugins.storage, and nobody is named who may "
                f"make it: set {' and '.join(names)}"
            )
        self._steps.ensure(f"bucket {store.bucket}", store.bucket_exists(), store.make_bucket)
        if root is not None:
            self._bootstrap_users(store, root[0])

    def _bootstrap_users(self, store: ObjectStore, root: str) -> None:
        assert self.storage is not None
        config, users = self.storage.config.model_dump(), MinioUsers(store, self._steps)
        key, secret = own_keys(self.storage, self.environ)
        if key and secret and key != root:
            users.ensure(
                key,
                secret,
                policy_name=f"floe-{store.bucket}",
                policy=bucket_policy(store.bucket),
                is_usable=ObjectStore(config, key, secret).is_usable,
            )
        state_key, state_secret = (self.environ.get(name) for name in STATE_KEYS)
        if not state_key or not state_secret:
            return
        if state_key in (root, key):
            self._steps.done(
                f"user of {STATE_PREFIX}",
                "skipped",
                f"{state_key} may use the warehouse, too; take another AWS_ACCESS_KEY_ID for Dagster's state",
            )
            return
        state = ObjectStore(config, state_key, state_secret)
        users.ensure(
            state_key,
            state_secret,
            policy_name=f"floe-{store.bucket}-state",
            policy=state_policy(store.bucket),
            is_usable=lambda: state.is_usable(STATE_PREFIX),
        )

    def _bootstrap_catalog(self, kind: str) -> None:
        assert self.catalog is not None
        server = server_of(kind, self.catalog.config.model_dump())
        if server is not None:
            server.wait(self.wait_seconds)
        bootstrap = CATALOG_TYPES[kind].bootstrap
        if bootstrap is None:
            self._steps.done(f"catalog {kind}", "skipped", "it has nothing that has to be made")
            return
        resolve_name(bootstrap)(
            CatalogRequest(
                catalog=self.catalog,
                storage=self.storage,
                steps=self._steps,
                environ=self.environ,
                namespaces=self.namespaces,
                granted=self.granted,
                credentials_file=self.credentials_file,
                management_url=self.management_url,
            )
        )
