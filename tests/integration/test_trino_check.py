"""`floe-dagster platform check` of a platform on Trino, as far as it goes without one."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml

from floe_dagster.cli import main
from floe_dagster.home import FloeHome
from floe_dagster.platform.check import check_platform
from floe_dagster.schemas.artifacts import PluginRef
from tests.receivers.serving import serving

HUSH = "hush-marker"
ON_TRINO = """\
apiVersion: floe.dev/v1
kind: Manifest
metadata: {name: test-platform, version: 1.0.0, owner: platform@example.com}
plugins:
  compute:
    type: trino
    config: {host: 127.0.0.1, port: 1, http_scheme: https, catalog: lake, user: etl, password: {env: TRINO_PASSWORD}, retries: 1}
"""


def trino(**more: Any) -> PluginRef:
    return PluginRef(
        type="trino", config={"host": "127.0.0.1", "port": 1, "catalog": "lake", "retries": 1, **more}
    )


def broken(home: FloeHome, compute: PluginRef, **environ: str) -> dict[str, str]:
    """Message and fix of what is wrong, by name."""
    checks = check_platform(
        None, None, engines={"plugins.compute": compute}, home=home, namespaces=("shop",), environ=environ
    )
    assert all(HUSH not in str(check) for check in checks)
    return {check.name: f"{check.message} {check.fix}" for check in checks if not check.passed}


def test_nobody_listens(home: FloeHome) -> None:
    found = broken(home, trino())
    assert set(found) == {"engine"}
    assert "http://127.0.0.1:1 does not answer: nothing listens there" in found["engine"]
    assert "plugins.compute.config.host and port" in found["engine"] and "Start Trino" in found["engine"]


def test_a_secret_that_is_not_set(home: FloeHome) -> None:
    secured = trino(http_scheme="https", user="etl", password={"env": "TRINO_PASSWORD"})
    assert "TRINO_PASSWORD, which is not set" in broken(home, secured)["engine"]
    assert "nothing listens there" in broken(home, secured, TRINO_PASSWORD=HUSH)["engine"]


def test_who_answers_is_no_trino(home: FloeHome) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with serving(Other) as address:
        found = broken(home, trino(port=int(address.rpartition(":")[2])))
    assert "is no Trino" in found["engine"]


def test_duckdb_has_nothing_to_be_looked_at(home: FloeHome) -> None:
    checks = check_platform(
        None, None, engines={"plugins.compute": PluginRef(type="duckdb")}, home=home, namespaces=("shop",)
    )
    assert checks and all(check.passed and not check.name.startswith("engine") for check in checks)


def test_the_command_says_so_and_shows_no_secret(
    tmp_path: Path, home: FloeHome, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRINO_PASSWORD", HUSH)
    (tmp_path / "m.yaml").write_text(ON_TRINO)
    assert main(["platform", "check", "--manifest", str(tmp_path / "m.yaml")]) == 1
    shown = capsys.readouterr()
    assert "engine" in shown.out and "FAILED" in shown.out and "engine: Start Trino" in shown.err
    assert main(["platform", "check", "--manifest", str(tmp_path / "m.yaml"), "--format", "json"]) == 1
    told = capsys.readouterr()
    assert [c["name"] for c in json.loads(told.out)["checks"] if not c["passed"]] == ["engine"]
    assert HUSH not in shown.out + shown.err + told.out + told.err


def test_a_further_engine_is_looked_at_and_named_by_its_place(
    tmp_path: Path, home: FloeHome, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRINO_PASSWORD", HUSH)
    document = yaml.safe_load(ON_TRINO)
    document["plugins"] = {"additional_compute": [document["plugins"]["compute"]]}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(document))
    assert main(["platform", "check", "--manifest", str(tmp_path / "m.yaml")]) == 1
    shown = capsys.readouterr()
    assert "nothing listens there. Check plugins.additional_compute (trino).config.host and port" in shown.out
    assert "engine: Start Trino, or correct plugins.additional_compute (trino).config: host" in shown.err
