"""Dagster's pages as a person sees them, in a real browser.

Screenshots go to the folder that `FLOE_SCREENSHOTS` names, where it is set.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from floe_dagster.cli import main
from tests.conftest import ROOT, shipped
from tests.dagster_dev import DagsterDev

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
pytestmark = pytest.mark.in_file_order(
    reason="one walk through one `dagster dev`: a page shows the runs that earlier pages asked for"
)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PRODUCTS = ("customer_360", "iot_telemetry", "financial_risk")


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    project, home = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("dev")
    shipped(project, *PRODUCTS)
    shutil.copy(ROOT / "workspace.yaml", project / "workspace.yaml")
    environment = pytest.MonkeyPatch()
    environment.setenv("FLOE_HOME", str(home / "floe"))
    assert main(["compile", *(str(project / "products" / name) for name in PRODUCTS)]) == 0
    environment.undo()
    running = DagsterDev(project, home)
    try:
        running.until(
            "three code locations",
            lambda: list(running.locations().values()) == ["RepositoryLocation"] * 3,
        )
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def page(dev: DagsterDev) -> Iterator[Page]:
    if not Path(CHROMIUM).exists():
        pytest.fail(f"there is no {CHROMIUM}: apt-get install chromium, or set CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        opened = browser.new_page(viewport={"width": 1680, "height": 950})
        opened.set_default_timeout(30_000)
        expect.set_options(timeout=30_000)
        yield opened
        browser.close()


def look(page: Page, name: str) -> None:
    """Keep a screenshot for people."""
    folder = os.environ.get("FLOE_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(1500)
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def ended(dev: DagsterDev, job: str) -> str:
    """Wait for a run of a job to succeed and return its id."""
    dev.until(f"a run of {job}", lambda: dev.runs(job))
    dev.until(f"the end of {job}", lambda: dev.runs(job)[0]["status"] in ("SUCCESS", "FAILURE"), 240)
    run = dev.runs(job)[0]
    assert run["status"] == "SUCCESS", dev.error_of(run["id"])
    return str(run["id"])


def test_three_locations_are_loaded(page: Page, dev: DagsterDev) -> None:
    page.goto(f"{dev.url}/deployment/locations")
    for name in ("customer-360", "iot-telemetry", "financial-risk"):
        expect(page.get_by_text(name).first).to_be_visible()
    expect(page.get_by_text("Loaded")).to_have_count(3)
    look(page, "locations")


def test_a_changed_line_is_compiled_by_itself(page: Page, dev: DagsterDev) -> None:
    spec = dev.project / "products" / "customer_360" / "floe.yaml"
    spec.write_text(spec.read_text().replace("tags: [dashboard]", "tags: [dashboard, weekly]"))
    ended(dev, "customer_360_compile")
    page.goto(f"{dev.url}/assets/customer_360/compiled_artifacts")
    expect(page.get_by_text("tables.mart_customer_360.tags").first).to_be_visible()
    expect(page.get_by_text("GENERATE").first).to_be_visible()
    look(page, "compile_asset")


def test_a_product_is_materialised(page: Page, dev: DagsterDev) -> None:
    page.goto(f"{dev.url}/locations/__repository__@customer-360/jobs/customer_360_run")
    page.get_by_role("button", name="Materialize all").first.click()
    run = ended(dev, "customer_360_run")
    page.goto(f"{dev.url}/runs/{run}")
    expect(page.get_by_text("published customer_360.mart_customer_360").first).to_be_visible()
    look(page, "run")


def test_a_table_shows_its_rows_snapshot_columns_and_checks(page: Page, dev: DagsterDev) -> None:
    page.goto(f"{dev.url}/assets/customer_360/mart_customer_360")
    expect(page.get_by_text("iceberg/snapshot_id").first).to_be_visible()
    look(page, "asset")
    page.goto(f"{dev.url}/assets/customer_360/mart_customer_360?view=checks")
    # The list shortens long names; the whole name is there, out of sight, to be measured.
    expect(page.get_by_text("unique_mart_customer_360_customer_id").first).to_be_attached()
    expect(page.get_by_text("Passed").first).to_be_visible()
    look(page, "checks")


def test_catalog_and_storage_are_resources_with_their_settings(page: Page, dev: DagsterDev) -> None:
    page.goto(f"{dev.url}/locations/__repository__@customer-360/resources/customer_360_catalog")
    expect(page.get_by_text("SqlCatalogResource").first).to_be_visible()
    expect(page.get_by_text("SQLite under FLOE_HOME when absent").first).to_be_visible()
    look(page, "resource")


def test_maintenance_leaves_its_numbers_with_each_table(page: Page, dev: DagsterDev) -> None:
    launched = dev.graphql(
        """mutation ($s: JobOrPipelineSelector!) { launchRun(executionParams: {selector: $s}) {
        __typename ... on LaunchRunSuccess { run { runId } } } }""",
        s={
            "repositoryLocationName": "customer-360",
            "repositoryName": "__repository__",
            "pipelineName": "customer_360_maintenance",
        },
    )["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess"
    ended(dev, "customer_360_maintenance")
    page.goto(f"{dev.url}/assets/customer_360/mart_customer_360?view=events")
    expect(page.get_by_text("maintenance/bytes_freed").first).to_be_attached()
    look(page, "maintenance")


def test_the_compile_assets_show_governance_and_policies(page: Page, dev: DagsterDev) -> None:
    page.goto(f"{dev.url}/assets/customer_360/resolved_governance")
    expect(page.get_by_text("manifest local-platform").first).to_be_visible()
    look(page, "governance")
    page.goto(f"{dev.url}/assets/customer_360/dbt_manifest?view=checks")
    expect(page.get_by_text("tier_order").first).to_be_visible()
    look(page, "policies")


def test_the_lineage_of_a_product(page: Page, dev: DagsterDev) -> None:
    page.goto(
        f"{dev.url}/assets/customer_360/mart_customer_360?view=lineage&lineageScope=upstream&lineageDepth=5"
    )
    for name in ("mart_customer_360", "int_customer_orders", "stg_transactions"):
        expect(page.get_by_text(name).first).to_be_attached()
    look(page, "lineage")
