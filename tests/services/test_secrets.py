"""Nothing that a failing run leaves behind holds a secret: files, databases, output, processes, pages."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dagster_dev import DagsterDev
from tests.integration.test_dagster_dev import DEFINITIONS, WORKSPACE
from tests.services.conftest import Services
from tests.services.proxy import FaultProxy, commits

CATALOG_MARKER = "floe-marker-of-the-catalog-7f3a9c"
STORAGE_MARKER = "floe-marker-of-the-storage-2b8e1d"
MARKERS = (CATALOG_MARKER.encode(), STORAGE_MARKER.encode())


def files_with_markers(*folders: Path) -> list[str]:
    """Return every file below the folders that holds a marker, packed ones included."""
    import zipfile

    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if not path.is_file():
                continue
            contents = [path.read_bytes()]
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as packed:
                    contents += [packed.read(name) for name in packed.namelist()]
            if any(marker in content for marker in MARKERS for content in contents):
                found.append(str(path))
    return found


class ProcessWatch(threading.Thread):
    """Looks at the command lines of all processes until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.found: set[str] = set()
        self.looks = 0
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(0.05):
            self.looks += 1
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes()
                except OSError:
                    continue
                if any(marker in line for marker in MARKERS):
                    self.found.add(line.decode(errors="replace"))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


@pytest.fixture
def watch() -> Iterator[ProcessWatch]:
    made = ProcessWatch()
    made.start()
    yield made
    made.stop()
    assert made.looks > 5 and made.found == set()


@pytest.mark.parametrize("failing", ["catalog", "storage", "commit", "dbt"])
def test_a_failing_run_leaves_no_secret_behind(
    failing: str,
    services: Services,
    shop: Path,
    proxy: FaultProxy,
    floe: Callable[..., Any],
    tmp_path: Path,
    watch: ProcessWatch,
) -> None:
    if failing == "dbt":
        (shop / "models" / "daily.sql").write_text("select no_such_column from {{ ref('orders') }}\n")
    if failing == "commit":
        proxy.rule(applies=commits(), status=400, times=100)
    manifest = services.write_manifest(tmp_path / "platform.yaml", catalog_url=proxy.url)
    secrets = {"DAGSTER_HOME": str(tmp_path / "home" / "dagster")}
    # In these the marker is the wrong secret; in the others the right one works, so that the run gets further.
    if failing == "catalog":
        secrets["POLARIS_CLIENT_SECRET"] = CATALOG_MARKER
    if failing in ("catalog", "storage"):
        secrets["MINIO_SECRET_ACCESS_KEY"] = STORAGE_MARKER
    process = floe("run", str(shop), "--manifest", str(manifest), **secrets)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1, output
    markers = [*MARKERS, *(services.environment[name].encode() for name in services.environment)]
    assert not [marker for marker in markers if marker.decode() in output]
    assert "Traceback" not in output
    global_markers = tuple(markers)
    left = [
        str(path)
        for path in tmp_path.rglob("*")
        if path.is_file() and any(marker in path.read_bytes() for marker in global_markers)
    ]
    assert left == [] and files_with_markers(tmp_path) == []
    assert len([path for path in (tmp_path / "home").rglob("*") if path.is_file()]) > 10


def test_no_page_of_the_ui_shows_a_secret(
    services: Services, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: ProcessWatch
) -> None:
    manifest = services.write_manifest(shop.parent / "platform.yaml")
    monkeypatch.setenv("POLARIS_CLIENT_SECRET", CATALOG_MARKER)
    monkeypatch.setenv("MINIO_SECRET_ACCESS_KEY", STORAGE_MARKER)
    monkeypatch.setenv("FLOE_MANIFEST", str(manifest))
    (shop.parent / "workspace.yaml").write_text(WORKSPACE)
    (shop / "__init__.py").touch()
    (shop / "definitions.py").write_text(DEFINITIONS)
    home = tmp_path / "dev"
    home.mkdir()
    dev = DagsterDev(shop.parent, home)
    try:
        dev.until("the product", lambda: "shop/orders" in dev.descriptions())
        selector = {"repositoryLocationName": "shop", "repositoryName": "__repository__"}
        resources = dev.graphql(
            """query ($s: RepositorySelector!) { allTopLevelResourceDetailsOrError(repositorySelector: $s) {
            ... on ResourceDetailsList { results { name description resourceType
              configuredValues { key value type } configFields { name description } } } } }""",
            s=selector,
        )["allTopLevelResourceDetailsOrError"]["results"]
        by_name = {entry["name"]: entry for entry in resources}
        catalog = by_name["shop_catalog"]
        assert catalog["resourceType"].endswith("IcebergRestResource") and catalog["description"]
        assert all(field["description"] for field in catalog["configFields"])
        values = {value["key"]: value["value"] for value in catalog["configuredValues"]}
        assert "${POLARIS_CLIENT_SECRET}" in values["client_secret"]
        assert "${MINIO_SECRET_ACCESS_KEY}" in str(by_name["shop_storage"]["configuredValues"])
        launched = dev.graphql(
            """mutation ($s: JobOrPipelineSelector!) { launchRun(executionParams: {selector: $s}) {
            __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            s={**selector, "pipelineName": "shop_run"},
        )["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run_id = launched["run"]["runId"]
        dev.until("the end of the run", lambda: dev.runs("shop_run")[0]["status"] == "FAILURE", 180)
        events = dev.graphql(
            """query ($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
            __typename ... on MessageEvent { message }
            ... on ExecutionStepFailureEvent { error { message stack cause { message stack } } } } } }
            runOrError(runId: $id) { ... on Run { runConfigYaml tags { key value } } } }""",
            id=run_id,
        )
        assert "refuses client" in json.dumps(events)
        assert not any(marker in json.dumps([events, resources]).encode() for marker in MARKERS)
        time.sleep(1)
    finally:
        dev.stop()
    assert not any(marker in dev.output.encode() for marker in MARKERS)
    assert files_with_markers(tmp_path) == []


def test_objects_show_no_secret(services: Services, home: Any) -> None:
    from floe_dagster.definitions.catalog_resources import IcebergRestResource
    from floe_dagster.definitions.storage_resources import MinioResource
    from floe_dagster.iceberg.catalogs import open_catalog

    catalog = open_catalog(**services.plugins(), home=home)
    resources = [
        IcebergRestResource(uri="http://x", warehouse="w", client_id="c", client_secret=CATALOG_MARKER),
        MinioResource(endpoint="http://x", bucket="b", secret_access_key=STORAGE_MARKER),
    ]
    shown = repr([catalog, catalog._auth_manager, *resources]) + str([catalog, *resources])  # type: ignore[attr-defined]
    for marker in (CATALOG_MARKER, STORAGE_MARKER, *services.environment.values()):
        assert marker not in shown
