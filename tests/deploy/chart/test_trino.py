"""A platform on Trino, which runs elsewhere: the way to it, who asks, and the authorities to trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from floe_dagster.schemas.base import SecretReference
from tests.deploy.chart.rendering import MANIFEST, RELEASE, Document, render, template
from tests.deploy.chart.test_manifests import NEWEST, refused

RULE = {"to": [{"ipBlock": {"cidr": "10.3.0.0/16"}}], "ports": [{"protocol": "TCP", "port": 8443}]}
OPENED = {"networkPolicy": {"external": {"compute": [RULE]}}}


def trino(**who: Any) -> dict[str, Any]:
    config = {"host": "trino.example.com", "port": 8443, "http_scheme": "https", "catalog": "floe", **who}
    return {"type": "trino", "config": config}


def manifest(
    folder: Path,
    compute: dict[str, Any] | None,
    name: str = "manifest.yaml",
    *,
    further: list[dict[str, Any]] | None = None,
) -> Path:
    document = yaml.safe_load(MANIFEST.read_text())
    document["plugins"].pop("compute", None)
    named = {"compute": compute, "additional_compute": further}
    document["plugins"] |= {category: plugin for category, plugin in named.items() if plugin is not None}
    (folder / name).write_text(yaml.safe_dump(document))
    return folder / name


def environment(chart: Any, container: str) -> dict[str, Document]:
    spec = chart.named("Job", f"{RELEASE}-bootstrap")["spec"]["template"]["spec"]
    (found,) = [c for c in [*spec["initContainers"], *spec["containers"]] if c["name"] == container]
    return {entry["name"]: entry for entry in found["env"]}


@pytest.mark.parametrize("where", ["manifest", "parent"])
def test_without_a_way_to_the_coordinator_nothing_is_installed(tmp_path: Path, where: str) -> None:
    platform = manifest(tmp_path, trino() if where == "manifest" else None)
    parent = manifest(tmp_path, trino(), "parent.yaml")
    extra = ["--set-file", f"parentManifests.parent\\.yaml={parent}"] if where == "parent" else []
    done = template(manifest=platform, extra=extra)
    assert done.returncode != 0
    assert "networkPolicy.external.compute is empty" in done.stderr and "trino" in done.stderr
    for changes in (OPENED, {"networkPolicy": {"enabled": False}}):
        assert template(manifest=platform, extra=extra, changes=changes).returncode == 0


@pytest.mark.parametrize("where", ["manifest", "parent"])
def test_nor_without_a_way_to_a_further_engine(tmp_path: Path, where: str) -> None:
    further = {"further": [trino()]}
    platform = manifest(tmp_path, {"type": "duckdb"}, **(further if where == "manifest" else {}))
    parent = manifest(tmp_path, None, "parent.yaml", **further)
    extra = ["--set-file", f"parentManifests.parent\\.yaml={parent}"] if where == "parent" else []
    done = template(manifest=platform, extra=extra)
    assert done.returncode != 0
    assert "plugins.additional_compute of the manifest is trino" in done.stderr
    assert template(manifest=platform, extra=extra, changes=OPENED).returncode == 0
    none = manifest(tmp_path, {"type": "duckdb"}, further=[])
    assert template(manifest=none, extra=extra).returncode == 0


def test_a_nearer_manifest_on_duckdb_needs_no_way(tmp_path: Path) -> None:
    platform = manifest(tmp_path, {"type": "duckdb"})
    parent = manifest(tmp_path, trino(), "parent.yaml")
    extra = ["--set-file", f"parentManifests.parent\\.yaml={parent}"]
    assert template(manifest=platform, extra=extra).returncode == 0


def test_the_bootstrap_has_the_secrets_that_manifests_name_themselves(tmp_path: Path) -> None:
    password = {"secret": "trino-etl", "key": "password.txt"}
    oauth2 = {
        "token_url": "https://login.example.com/token",
        "client_id": "etl",
        "client_secret": {"env": "TRINO_CLIENT_SECRET", "secret": "trino-login", "key": "secret"},
    }
    platform = manifest(tmp_path, trino(user="etl", password=password))
    parent = manifest(tmp_path, trino(oauth2=oauth2), "parent.yaml")
    extra = ["--set-file", f"parentManifests.parent\\.yaml={parent}"]
    chart = render(manifest=platform, extra=extra, changes=OPENED)
    expected = SecretReference.parse(password)["env"]
    for container in ("bootstrap", "check"):
        env = environment(chart, container)
        references = {name: e["valueFrom"]["secretKeyRef"] for name, e in env.items() if "valueFrom" in e}
        assert references == {
            expected: {"name": "trino-etl", "key": "password.txt", "optional": True},
            "TRINO_CLIENT_SECRET": {"name": "trino-login", "key": "secret", "optional": True},
        }
    assert refused(list(chart.documents), NEWEST) == []


def test_the_bootstrap_finds_the_authorities_that_the_manifest_names() -> None:
    volume = {"name": "authorities", "configMap": {"name": "authorities"}}
    mount = {"name": "authorities", "mountPath": "/etc/trino", "readOnly": True}
    chart = render(changes={"bootstrap": {"volumes": [volume], "volumeMounts": [mount]}})
    spec = chart.named("Job", f"{RELEASE}-bootstrap")["spec"]["template"]["spec"]
    assert volume in spec["volumes"]
    assert all(mount in c["volumeMounts"] for c in [*spec["initContainers"], *spec["containers"]])
    assert refused(list(chart.documents), NEWEST) == []
