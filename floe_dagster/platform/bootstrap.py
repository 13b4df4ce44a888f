"""Brings an empty catalog and an empty store to a usable state, with the least rights that do.

Every step looks first and makes only what is missing, so it can be run again after any failure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from floe_dagster.credentials import MissingCredentialError, resolve
from floe_dagster.iceberg.catalogs import is_vended
from floe_dagster.iceberg.errors import CatalogError
from floe_dagster.iceberg.rest import ClientCredentials
from floe_dagster.platform.minio_users import MinioUsers
from floe_dagster.platform.object_store import (
    STATE_PREFIX,
    ObjectStore,
    bucket_policy,
    own_keys,
    state_policy,
)
from floe_dagster.platform.polaris import PolarisManagement, credentials_of
from floe_dagster.platform.readiness import wait_for_catalog, wait_for_store
from floe_dagster.platform.steps import Step, Steps
from floe_dagster.platform.waiting import PlatformError
from floe_dagster.schemas.compute import ENGINES
from floe_dagster.schemas.compute.engine import audit_schema
from floe_dagster.schemas.manifest import PlatformManifest

WAIT_SECONDS = 60.0
CONTENT_PRIVILEGE = "CATALOG_MANAGE_CONTENT"
ROOT_KEYS = ("POLARIS_ROOT_CLIENT_ID", "POLARIS_ROOT_CLIENT_SECRET")
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
            if self.catalog is not None and self.catalog.type != "sql":
                wait_for_catalog(str(self.catalog.config.uri).rstrip("/"), self.wait_seconds)
            if self.catalog is not None and self.catalog.type == "polaris":
                self._bootstrap_polaris()
            elif self.catalog is not None:
                self._steps.done(
                    f"catalog {self.catalog.type}", "skipped", "it has nothing that has to be made"
                )
        except MissingCredentialError as error:
            raise PlatformError(str(error)) from None
        return self.steps

    @property
    def steps(self) -> list[Step]:
        """What was done so far."""
        return self._steps.taken

    def _store(self) -> ObjectStore | None:
        if self.storage is None or self.storage.type == "local":
            return None
        config = self.storage.config.model_dump()
        root = self.environ.get("MINIO_ROOT_USER"), self.environ.get("MINIO_ROOT_PASSWORD")
        if self.storage.type == "minio" and all(root):
            return ObjectStore(config, *root)
        return ObjectStore(config, *self._own_keys())

    def _own_keys(self) -> tuple[str | None, str | None]:
        assert self.storage is not None and self.storage.type != "local"
        return own_keys(self.storage, self.environ)

    def _bootstrap_store(self, store: ObjectStore) -> None:
        assert self.storage is not None
        is_root = self.storage.type == "minio" and bool(self.environ.get("MINIO_ROOT_PASSWORD"))
        if self.storage.type == "minio" and not is_root and not store.is_usable():
            raise PlatformError(
                f"the bucket {store.bucket!r} cannot be used with the keys of plugins.storage, and nobody is named who may "
                "make it: set MINIO_ROOT_USER and MINIO_ROOT_PASSWORD"
            )
        self._steps.ensure(f"bucket {store.bucket}", store.bucket_exists(), store.make_bucket)
        if is_root:
            self._bootstrap_users(store)

    def _bootstrap_users(self, store: ObjectStore) -> None:
        assert self.storage is not None and self.storage.type != "local"
        config, users = self.storage.config.model_dump(), MinioUsers(store, self._steps)
        root = self.environ.get("MINIO_ROOT_USER")
        key, secret = self._own_keys()
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

    def _bootstrap_polaris(self) -> None:
        assert self.catalog is not None and self.catalog.type == "polaris"
        config = self.catalog.config
        uri = config.uri.rstrip("/")
        name = config.warehouse
        token_url = config.oauth2.token_url or f"{uri}/v1/oauth/tokens"
        if self.management_url is None and not uri.endswith("/api/catalog"):
            raise PlatformError(
                f"plugins.catalog.config.uri ({uri}) does not end in /api/catalog; name the management API with "
                "--management-url"
            )
        if not any(self.environ.get(key) for key in ROOT_KEYS) and self._is_usable(token_url):
            self._steps.done(
                f"catalog {name}",
                "skipped",
                "the credentials of the manifest are accepted, and nobody is named who may change it",
            )
            return
        management = self.management_url or uri.removesuffix("/api/catalog") + "/api/management/v1"
        root_id = resolve("${POLARIS_ROOT_CLIENT_ID}", "bootstrap", self.environ)
        root_secret = resolve("${POLARIS_ROOT_CLIENT_SECRET}", "bootstrap", self.environ)
        assert root_id and root_secret
        polaris = PolarisManagement(management, token_url, root_id, root_secret)
        scope = "_".join(("", *self.namespaces))
        principal = self._principal_name(polaris)
        role, catalog_role = f"{principal}_role", f"floe{scope}_writer"

        self._catalog(polaris, name)
        self._principal(polaris, principal, token_url)
        named_role, named_catalog_role = (
            {"principalRole": {"name": role}},
            {"catalogRole": {"name": catalog_role}},
        )
        self._steps.ensure(
            f"principal role {role}",
            role in polaris.names("principal-roles", key="roles"),
            lambda: polaris.create("principal-roles", body=named_role),
        )
        self._steps.ensure(
            f"principal role {role} of {principal}",
            role in polaris.names("principals", principal, "principal-roles", key="roles"),
            lambda: polaris.put("principals", principal, "principal-roles", body=named_role),
        )
        has_role = catalog_role in polaris.names("catalogs", name, "catalog-roles", key="roles")
        self._steps.ensure(
            f"catalog role {catalog_role} of {name}",
            has_role,
            lambda: polaris.create("catalogs", name, "catalog-roles", body=named_catalog_role),
        )
        self._grants(polaris, name, catalog_role, known=has_role)
        self._steps.ensure(
            f"catalog role {catalog_role} for {role}",
            catalog_role in polaris.names("principal-roles", role, "catalog-roles", name, key="roles"),
            lambda: polaris.put("principal-roles", role, "catalog-roles", name, body=named_catalog_role),
        )

    def _principal_name(self, polaris: PolarisManagement) -> str:
        """Return whose credentials the manifest has; where nobody's, the name of the one to be made."""
        assert self.catalog is not None and self.catalog.type == "polaris"
        configured = self.catalog.config.oauth2.client_id
        wanted = self._manifest_credentials()
        for entry in (polaris.get("principals") or {}).get("principals", ()) if wanted else ():
            if wanted and entry.get("clientId") == wanted[0]:
                return str(entry["name"])
        return configured if not configured.startswith("${") else f"floe-{self.catalog.config.warehouse}"

    def _catalog(self, polaris: PolarisManagement, name: str) -> None:
        assert self.catalog is not None
        if self.storage is None or self.storage.type == "local":
            raise PlatformError("a Polaris catalog needs plugins.storage of type s3 or minio")
        storage = self.storage.config
        base = f"s3://{storage.bucket}/warehouse"
        existing = polaris.get("catalogs", name)
        if existing is not None:
            allowed = (existing.get("storageConfigInfo") or {}).get("allowedLocations") or []
            fits = any(base == location.rstrip("/") for location in allowed)
            note = "" if fits or not allowed else f"its locations are {', '.join(allowed)}, not {base}"
            self._steps.done(f"catalog {name}", "there", note)
            return
        info: dict[str, Any] = {
            "storageType": "S3",
            "allowedLocations": [base],
            "region": storage.region,
            "pathStyleAccess": storage.path_style_access,
            "stsUnavailable": not is_vended("polaris", self.catalog.config.model_dump()),
        }
        if storage.endpoint:
            info["endpoint"] = storage.endpoint
        body = {
            "catalog": {
                "type": "INTERNAL",
                "name": name,
                "properties": {"default-base-location": base},
                "storageConfigInfo": info,
            }
        }
        self._steps.make(f"catalog {name}", lambda: polaris.create("catalogs", body=body), note=base)

    def _principal(self, polaris: PolarisManagement, principal: str, token_url: str) -> None:
        assert self.catalog is not None and self.catalog.type == "polaris"
        oauth2 = self.catalog.config.oauth2
        wanted = self._manifest_credentials()
        if wanted is not None and self._is_accepted(token_url, *wanted, oauth2.scope):
            self._steps.done(
                f"principal {principal}", "there", "the credentials of the manifest are accepted"
            )
            return
        exists = polaris.get("principals", principal) is not None
        if self.dry_run:
            self._steps.done(
                f"credentials of principal {principal}" if exists else f"principal {principal}",
                "would change" if exists else "would make",
            )
            return
        credentials = None
        if not exists:
            body = {"principal": {"name": principal}, "credentialRotationRequired": False}
            credentials = credentials_of(polaris.create("principals", body=body))
            self._steps.done(f"principal {principal}", "made")
        if wanted is not None:
            given = polaris.reset(principal, *wanted)
            if given == wanted or self._is_accepted(token_url, *wanted, oauth2.scope):
                self._steps.done(
                    f"credentials of principal {principal}", "changed", "to those of the manifest"
                )
                return
            credentials = given or credentials
        if credentials is None:
            credentials = polaris.new_secret(principal)
        self._hand_over(principal, credentials)

    def _hand_over(self, principal: str, credentials: tuple[str, str] | None) -> None:
        """Write what Polaris made; it is shown once and never on a screen."""
        advice = (
            "Polaris makes client ids itself. Run it again with --credentials-file FILE, set POLARIS_CLIENT_ID and "
            "POLARIS_CLIENT_SECRET from that file, and write in the manifest client_id: ${POLARIS_CLIENT_ID}"
        )
        if credentials is None:
            raise PlatformError(
                f"principal {principal} exists with other credentials than the manifest's. {advice}"
            )
        if self.credentials_file is None:
            raise PlatformError(f"the credentials of principal {principal} have no place to go. {advice}")
        from floe_dagster.compilation.atomic import write_atomically

        text = f"POLARIS_CLIENT_ID={credentials[0]}\nPOLARIS_CLIENT_SECRET={credentials[1]}\n"
        write_atomically(self.credentials_file, text.encode(), mode=0o600)
        self._steps.done(
            f"credentials of principal {principal}",
            "made",
            f"in {self.credentials_file}; hand them to the runs",
        )

    def _is_usable(self, token_url: str) -> bool:
        """Tell whether Polaris takes the manifest's credentials: it was prepared by somebody else then."""
        assert self.catalog is not None and self.catalog.type == "polaris"
        wanted = self._manifest_credentials()
        return wanted is not None and self._is_accepted(token_url, *wanted, self.catalog.config.oauth2.scope)

    def _manifest_credentials(self) -> tuple[str, str] | None:
        assert self.catalog is not None and self.catalog.type == "polaris"
        oauth2 = self.catalog.config.oauth2
        try:
            client_id = resolve(oauth2.client_id, "client_id", self.environ)
            secret = resolve(oauth2.client_secret.model_dump(), "client_secret", self.environ)
        except MissingCredentialError:
            return None
        return (client_id, secret) if client_id and secret else None

    def _is_accepted(self, token_url: str, client_id: str, secret: str, scope: str) -> bool:
        try:
            ClientCredentials(token_url, client_id, secret, scope, 20.0).auth_header()
        except CatalogError:
            return False
        return True

    def _grants(self, polaris: PolarisManagement, name: str, role: str, *, known: bool) -> None:
        path = ("catalogs", name, "catalog-roles", role, "grants")
        current = (polaris.get(*path) or {}).get("grants", []) if known else []
        wanted: list[tuple[str, dict[str, Any]]] = [
            (
                f"{CONTENT_PRIVILEGE} on namespace {namespace}",
                {"type": "namespace", "namespace": [namespace], "privilege": CONTENT_PRIVILEGE},
            )
            for namespace in self.granted
        ] or [(f"{CONTENT_PRIVILEGE} on {name}", {"type": "catalog", "privilege": CONTENT_PRIVILEGE})]
        for what, grant in wanted:
            # Polaris takes seconds to refuse a grant that is there already.
            is_there = any(all(entry.get(key) == value for key, value in grant.items()) for entry in current)
            if grant["type"] == "namespace" and not is_there:
                self._namespace(grant["namespace"][0])
            self._steps.ensure(
                f"{what} for {role}", is_there, partial(polaris.put, *path, body={"grant": grant})
            )

    def _namespace(self, namespace: str) -> None:
        """Make a namespace as root: a right can be given on one that exists only."""
        assert self.catalog is not None and self.catalog.type == "polaris"
        from floe_dagster.iceberg.namespaces import make_namespace
        from floe_dagster.iceberg.rest import rest_catalog

        if self.dry_run:
            self._steps.done(f"namespace {namespace}", "would make", "where it is missing")
            return
        config = self.catalog.config.model_dump()
        config["oauth2"] = {
            **config["oauth2"],
            "client_id": self.environ["POLARIS_ROOT_CLIENT_ID"],
            "client_secret": self.environ["POLARIS_ROOT_CLIENT_SECRET"],
        }
        try:
            made = make_namespace(rest_catalog(config, {}), namespace)
        except Exception as error:
            raise PlatformError(f"namespace {namespace} cannot be made: {error}") from None
        self._steps.done(f"namespace {namespace}", "made" if made else "there")
