"""`floe-dagster platform wait` against a real store and catalog: absent, late, wrong, there."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import yaml

from floe_dagster.cli import main
from floe_dagster.platform.bootstrap import Bootstrap
from floe_dagster.platform.readiness import wait_until_ready
from floe_dagster.platform.waiting import PlatformError
from floe_dagster.schemas.manifest import PlatformManifest
from tests.services.conftest import Services


def with_bucket(services: Services, bucket: str) -> PlatformManifest:
    document = yaml.safe_load(yaml.safe_dump(services.manifest))
    document["plugins"]["storage"]["config"]["bucket"] = bucket
    return PlatformManifest.model_validate(document)


def test_what_is_there_is_ready_at_once(services: Services) -> None:
    manifest = PlatformManifest.model_validate(services.manifest)
    said: list[str] = []
    begun = time.monotonic()
    wait_until_ready(manifest, seconds=30, environ=services.environment, say=said.append)
    assert time.monotonic() - begun < 5
    assert len(said) == 2 and "exists and answers" in said[0] and said[1].startswith("the catalog at")


def test_it_goes_on_as_soon_as_the_bucket_is_made(services: Services) -> None:
    manifest = with_bucket(services, f"late-{time.monotonic_ns()}")
    root = dict(services.environment)
    maker = threading.Timer(2.0, lambda: Bootstrap(manifest, environ=root).run())
    maker.start()
    begun = time.monotonic()
    wait_until_ready(manifest, parts=("storage",), seconds=60, environ=root)
    maker.join()
    assert 2 <= time.monotonic() - begun < 20


def test_who_has_the_keys_of_the_state_alone_waits_with_them(services: Services) -> None:
    manifest = PlatformManifest.model_validate(services.manifest)
    said: list[str] = []
    wait_until_ready(manifest, parts=("state",), seconds=10, environ=services.dagster_keys(), say=said.append)
    assert len(said) == 1 and "exists and answers" in said[0]
    # Not those of the manifest, which are not even looked up.
    with pytest.raises(PlatformError, match="these keys may not list it"):
        wait_until_ready(manifest, parts=("state",), seconds=2, environ=services.environment)


def test_a_bucket_that_nobody_makes_is_named_after_a_bounded_time(services: Services) -> None:
    manifest = with_bucket(services, "nobody-makes-it")
    begun = time.monotonic()
    with pytest.raises(PlatformError) as refused:
        wait_until_ready(manifest, parts=("storage",), seconds=3, environ=services.environment)
    assert time.monotonic() - begun < 10
    told = str(refused.value)
    assert "bucket nobody-makes-it" in told and "it does not exist, or these keys may not list it" in told
    assert "platform bootstrap" in told


def test_a_store_that_is_away_is_named_with_its_address(
    services: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = yaml.safe_load(yaml.safe_dump(services.manifest))
    document["plugins"]["storage"]["config"]["endpoint"] = "http://127.0.0.1:9"
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text(yaml.safe_dump(document))
    for name, value in services.environment.items():
        monkeypatch.setenv(name, value)
    assert main(["platform", "wait", "--manifest", str(manifest), "--wait", "2"]) == 1
    assert "the store at http://127.0.0.1:9 did not answer within 2 s" in capsys.readouterr().err
    # The catalog is there; who waits for it alone goes on.
    assert main(["platform", "wait", "--manifest", str(manifest), "--only", "catalog"]) == 0


def test_a_secret_that_is_not_set_is_named(services: Services) -> None:
    manifest = PlatformManifest.model_validate(services.manifest)
    with pytest.raises(PlatformError, match="which is not set"):
        wait_until_ready(manifest, parts=("storage",), seconds=1, environ={})
