"""OAuth2 client credentials of a catalog."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from floe_dagster.schemas.addresses import Url
from floe_dagster.schemas.base import Section
from floe_dagster.schemas.secrets import Secret

DEFAULT_SCOPE = "PRINCIPAL_ROLE:ALL"
"""Of a catalog's token where the manifest names no scope: all roles of the principal, in Polaris' words. The default of
Iceberg's clients, `catalog`, is one that Polaris refuses."""


class OAuth2Config(Section):
    client_id: str = Field(description="OAuth2 client id; no secret.")
    client_secret: Secret = Field(description="OAuth2 client secret, by reference.")
    scope: str = Field(DEFAULT_SCOPE, description="OAuth2 scope.")
    token_url: Url | None = Field(None, description="Token endpoint; the catalog's own when absent.")


def oauth2_scope(oauth2: Mapping[str, Any]) -> str:
    """Return the scope that every client of the catalog asks its token for: floe-dagster's own, and an engine's.

    Args:
        oauth2: `plugins.catalog.config.oauth2` of a manifest or of an artifact.
    """
    return str(oauth2.get("scope") or DEFAULT_SCOPE)
