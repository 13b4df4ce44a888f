"""Makes in Polaris what is missing: catalog, principal, roles and grants, with the least rights that do."""

from __future__ import annotations

from functools import partial
from typing import Any

from floe_dagster.credentials import MissingCredentialError, resolve
from floe_dagster.iceberg.errors import CatalogError
from floe_dagster.iceberg.rest import ClientCredentialsAuth
from floe_dagster.platform.catalog_server import CatalogRequest
from floe_dagster.platform.polaris import PolarisManagement, credentials_of
from floe_dagster.platform.waiting import PlatformError
from floe_dagster.schemas.catalog_types.polaris import POLARIS, PolarisCatalogConfig
from floe_dagster.schemas.storage_types import STORAGE_TYPES, shared_storage_types

CONTENT_PRIVILEGE = "CATALOG_MANAGE_CONTENT"
ROOT_KEYS = ("POLARIS_ROOT_CLIENT_ID", "POLARIS_ROOT_CLIENT_SECRET")


def bootstrap_polaris(asked: CatalogRequest) -> None:
    """Make what is missing; see `CatalogType.bootstrap`.

    Args:
        asked: What is wanted, and where its steps go.

    Raises:
        PlatformError: Polaris refuses.
        MissingCredentialError: A secret is not set.
    """
    _PolarisBootstrap(asked).run()


class _PolarisBootstrap:
    def __init__(self, asked: CatalogRequest) -> None:
        self.asked = asked
        self.config: PolarisCatalogConfig = asked.catalog.config
        self._steps = asked.steps

    def run(self) -> None:
        """Do every step."""
        config = self.config
        uri = config.uri.rstrip("/")
        name = config.warehouse
        token_url = config.oauth2.token_url or f"{uri}/v1/oauth/tokens"
        if self.asked.management_url is None and not uri.endswith("/api/catalog"):
            raise PlatformError(
                f"plugins.catalog.config.uri ({uri}) does not end in /api/catalog; name the management API with "
                "--management-url"
            )
        if not any(self.asked.environ.get(key) for key in ROOT_KEYS) and self._is_usable(token_url):
            self._steps.done(
                f"catalog {name}",
                "skipped",
                "the credentials of the manifest are accepted, and nobody is named who may change it",
            )
            return
        management = self.asked.management_url or uri.removesuffix("/api/catalog") + "/api/management/v1"
        root_id = resolve("${POLARIS_ROOT_CLIENT_ID}", "bootstrap", self.asked.environ)
        root_secret = resolve("${POLARIS_ROOT_CLIENT_SECRET}", "bootstrap", self.asked.environ)
        assert root_id and root_secret
        polaris = PolarisManagement(management, token_url, root_id, root_secret)
        scope = "_".join(("", *self.asked.namespaces))
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
        configured = self.config.oauth2.client_id
        wanted = self._manifest_credentials()
        for entry in (polaris.get("principals") or {}).get("principals", ()) if wanted else ():
            if wanted and entry.get("clientId") == wanted[0]:
                return str(entry["name"])
        return configured if not configured.startswith("${") else f"floe-{self.config.warehouse}"

    def _catalog(self, polaris: PolarisManagement, name: str) -> None:
        if self.asked.storage is None or not STORAGE_TYPES[self.asked.storage.type].is_shared:
            raise PlatformError(
                f"a Polaris catalog needs plugins.storage of type {' or '.join(shared_storage_types())}"
            )
        storage = self.asked.storage.config
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
            "stsUnavailable": not POLARIS.gives_keys(self.config.model_dump()),
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
        oauth2 = self.config.oauth2
        wanted = self._manifest_credentials()
        if wanted is not None and self._is_accepted(token_url, *wanted, oauth2.scope):
            self._steps.done(
                f"principal {principal}", "there", "the credentials of the manifest are accepted"
            )
            return
        exists = polaris.get("principals", principal) is not None
        if self._steps.dry_run:
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
        if self.asked.credentials_file is None:
            raise PlatformError(f"the credentials of principal {principal} have no place to go. {advice}")
        from floe_dagster.atomic import write_atomically

        text = f"POLARIS_CLIENT_ID={credentials[0]}\nPOLARIS_CLIENT_SECRET={credentials[1]}\n"
        write_atomically(self.asked.credentials_file, text.encode(), mode=0o600)
        self._steps.done(
            f"credentials of principal {principal}",
            "made",
            f"in {self.asked.credentials_file}; hand them to the runs",
        )

    def _is_usable(self, token_url: str) -> bool:
        """Tell whether Polaris takes the manifest's credentials: it was prepared by somebody else then."""
        wanted = self._manifest_credentials()
        return wanted is not None and self._is_accepted(token_url, *wanted, self.config.oauth2.scope)

    def _manifest_credentials(self) -> tuple[str, str] | None:
        oauth2 = self.config.oauth2
        try:
            client_id = resolve(oauth2.client_id, "client_id", self.asked.environ)
            secret = resolve(oauth2.client_secret.model_dump(), "client_secret", self.asked.environ)
        except MissingCredentialError:
            return None
        return (client_id, secret) if client_id and secret else None

    def _is_accepted(self, token_url: str, client_id: str, secret: str, scope: str) -> bool:
        try:
            ClientCredentialsAuth(token_url, client_id, secret, scope, 20.0).auth_header()
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
            for namespace in self.asked.granted
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
        from floe_dagster.iceberg.namespaces import make_namespace
        from floe_dagster.iceberg.rest import rest_catalog

        if self._steps.dry_run:
            self._steps.done(f"namespace {namespace}", "would make", "where it is missing")
            return
        config = self.config.model_dump()
        config["oauth2"] = {
            **config["oauth2"],
            "client_id": self.asked.environ["POLARIS_ROOT_CLIENT_ID"],
            "client_secret": self.asked.environ["POLARIS_ROOT_CLIENT_SECRET"],
        }
        try:
            made = make_namespace(rest_catalog(config, {}), namespace)
        except Exception as error:
            raise PlatformError(f"namespace {namespace} cannot be made: {error}") from None
        self._steps.done(f"namespace {namespace}", "made" if made else "there")
