"""Whoever asks for a token of the catalog asks for the same scope: floe-dagster's own client, and Trino by its settings."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from deploy.services.trino import settings as trino
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.errors import NotUsableError
from floe_dagster.schemas.artifacts import PluginRef
from floe_dagster.schemas.catalog_types.oauth2 import DEFAULT_SCOPE
from floe_dagster.schemas.manifest import PlatformManifest
from tests.conftest import ROOT
from tests.rest_server.catalog import Given, catalog_contract

SHIPPED = [*sorted((ROOT / "manifests").glob("*.yaml")), ROOT / "deploy" / "production" / "manifest.yaml"]
OAUTH2: dict[str, Any] = {"client_id": "floe-etl", "client_secret": {"env": "CATALOG_SECRET"}}
SCOPE = "iceberg.rest-catalog.oauth2.scope"


def with_oauth2() -> list[Any]:
    """Catalogs of the manifests that ship, where they ask for a token."""
    found = [
        (path.stem if path.parent.name == "manifests" else "production", yaml.safe_load(path.read_text()))
        for path in SHIPPED
    ]
    catalogs = [(name, document.get("plugins", {}).get("catalog", {})) for name, document in found]
    return [
        pytest.param(catalog["type"], catalog["config"], id=name)
        for name, catalog in catalogs
        if (catalog.get("config") or {}).get("oauth2")
    ]


VARIANTS = [
    *with_oauth2(),
    *(
        pytest.param(
            kind, {"uri": "http://x", "warehouse": "floe", "oauth2": {**OAUTH2, **more}}, id=f"{kind}-{name}"
        )
        for kind in ("polaris", "rest")
        for name, more in {
            "no scope": {},
            "one role": {"scope": "PRINCIPAL_ROLE:writer"},
            "two roles": {"scope": "PRINCIPAL_ROLE:a PRINCIPAL_ROLE:b"},
            "another server's": {"scope": "catalog"},
            "empty": {"scope": ""},
        }.items()
    ),
]


@pytest.mark.parametrize(("kind", "config"), VARIANTS)
def test_trino_asks_for_what_the_client_asks_for(
    kind: str, config: dict[str, Any], tmp_path: Path, home: FloeHome
) -> None:
    nowhere: Any = SimpleNamespace(administrator=dict)
    with catalog_contract(
        tmp_path / "server", nowhere, f"file://{tmp_path}", ("x", "x"), lambda *_: Given()
    ) as catalog:
        asked = {**config, "uri": catalog.url}
        asked["oauth2"] = {**config["oauth2"], **OAUTH2, "token_url": f"{catalog.url}/v1/oauth/tokens"}
        # As a run has it: what the manifest leaves out, its model has filled in.
        plugin = {"type": kind, "config": asked}
        manifest = PlatformManifest.model_validate(
            {
                "apiVersion": "floe.dev/v1",
                "kind": "Manifest",
                "metadata": {"name": "platform-a", "version": "1.0.0", "owner": "a@example.com"},
                "plugins": {"compute": {"type": "duckdb"}, "catalog": plugin},
            }
        )
        assert manifest.plugins is not None and manifest.plugins.catalog is not None
        filled = manifest.plugins.catalog.model_dump(mode="json")
        for one in (plugin, filled):
            with contextlib.suppress(NotUsableError):
                open_catalog(
                    PluginRef(type=one["type"], config=one["config"]),
                    None,
                    home=home,
                    environ={"CATALOG_SECRET": "s"},
                )
    assert len(catalog.scopes) == 2
    assert {trino.rest_catalog(one["config"])[SCOPE] for one in (plugin, filled)} == set(catalog.scopes)


def test_what_trino_is_not_told_it_would_get_wrong() -> None:
    base = {"uri": "http://x", "warehouse": "floe"}
    found = trino.rest_catalog({**base, "oauth2": {**OAUTH2, "token_url": "http://id/token"}})
    assert found[SCOPE] == DEFAULT_SCOPE == "PRINCIPAL_ROLE:ALL"
    assert found["iceberg.rest-catalog.oauth2.server-uri"] == "http://id/token"
    assert found["iceberg.rest-catalog.oauth2.credential"] == "floe-etl:${ENV:CATALOG_SECRET}"
    # OAuth2SecurityConfig of Trino: "Scope is applicable only when using credential".
    by_token = trino.rest_catalog({**base, "token": "${CATALOG_TOKEN}"})
    assert by_token["iceberg.rest-catalog.oauth2.token"] == "${ENV:CATALOG_TOKEN}" and SCOPE not in by_token
    assert not [name for name in trino.rest_catalog(base) if "oauth2" in name or "security" in name]
    vended = "iceberg.rest-catalog.vended-credentials-enabled"
    assert found[vended] == "true"
    assert vended not in trino.rest_catalog({**base, "credential_vending": False})


def test_the_files_of_a_node_hold_the_scope_of_the_services_manifest(tmp_path: Path) -> None:
    services = tmp_path / "services"
    services.mkdir()
    manifest = yaml.safe_load((ROOT / "manifests" / "demo.yaml").read_text())
    manifest["plugins"]["catalog"]["config"]["oauth2"]["scope"] = "PRINCIPAL_ROLE:writer"
    (services / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    (services / "services.json").write_text(
        '{"catalog": "http://127.0.0.1:1", "minio": "http://127.0.0.1:2"}'
    )
    made = trino.Settings(tmp_path, tmp_path / "server", services, trino.Options(), {"coordinator": 8080})
    made.write("coordinator")
    written = (tmp_path / "coordinator" / "etc" / "catalog" / "floe.properties").read_text().splitlines()
    assert f"{SCOPE}=PRINCIPAL_ROLE:writer" in written
    assert "iceberg.rest-catalog.uri=http://127.0.0.1:1" in written


def test_the_page_shows_what_the_production_manifest_needs() -> None:
    page = (ROOT / "docs" / "trino.md").read_text()
    (block,) = re.findall(r"```properties\n(.*?)```", page, re.DOTALL)
    shown = dict(line.split("=", 1) for line in block.splitlines())
    manifest = yaml.safe_load((ROOT / "deploy" / "production" / "manifest.yaml").read_text())
    assert shown == trino.rest_catalog(manifest["plugins"]["catalog"]["config"])
