"""What docs/operations.md tells an operator to do, held to the chart and the code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from dagster._core.storage.defs_state.blob_storage_state_storage import UPathDefsStateStorage

from floe_dagster.cli.main import build_parser
from floe_dagster.definitions.state import state_key
from tests.conftest import ROOT
from tests.deploy.chart.rendering import CHART, HELM, VALUE_FILES, chart_metadata, rendered
from tests.deploy.chart.test_manifests import NEWEST, OLDEST
from tests.deploy.production.platform import platform

PAGE = (ROOT / "docs" / "operations.md").read_text()


def section(title: str) -> str:
    found = re.search(rf"\n### {title}\n(.*?)(?=\n##)", PAGE, re.DOTALL)
    assert found, title
    return found[1]


def test_versions_are_those_that_are_tested() -> None:
    table = PAGE[PAGE.index("| needed | version |") : PAGE.index("### Secrets")]
    assert f"render with {HELM[1].removeprefix('v').rpartition('.')[0]}" in table
    assert chart_metadata()["kubeVersion"] == f">={OLDEST}.0-0"
    assert f"{OLDEST} or newer" in table and f"against {OLDEST} and {NEWEST}" in table


def test_an_upgrade_fetches_the_charts_that_it_needs_before_it_installs() -> None:
    upgrade = section("Upgrade")
    assert 0 < upgrade.index("helm dependency update deploy/floe-platform") < upgrade.index("\ninstall\n")
    (values, manifest) = re.findall(r"production/(values\.yaml) \\\n.*production/(manifest\.yaml)", upgrade)[
        0
    ]
    assert (ROOT / "deploy" / "production" / values).exists()
    assert (ROOT / "deploy" / "production" / manifest).exists()


def test_a_rollback_names_every_state_of_helm_s_history_that_one_may_find() -> None:
    rollback = section("Roll back")
    for status in ("deployed", "failed", "superseded", "pending-upgrade"):
        assert f"`{status}`" in rollback
    assert "helm -n $NS history" in rollback and "--revision" in rollback


@pytest.mark.parametrize("title", ["Add a product", "Remove a product"])
def test_all_files_that_know_the_products_are_named(title: str) -> None:
    listed = subprocess.run(
        [
            "git",
            "-C",
            str(ROOT),
            "grep",
            "-lE",
            r"iot[-_]telemetry\.definitions|location_name: iot-telemetry",
        ],
        capture_output=True,
        text=True,
    ).stdout.split()
    elsewhere = ("products/", "tests/", "docs/", f"{CHART.relative_to(ROOT)}/", "README.md")
    files = {name for name in listed if not name.startswith(elsewhere)} - {"deploy/production/values.yaml"}
    assert files == {"workspace.yaml", "docker/dagster-demo/workspace.yaml", "dagster_cloud.yaml"}
    text = section(title)
    for name in (*files, "products/orders", "production/values.yaml", "deployments", "bootstrap.namespaces"):
        assert f"`{name}" in text, name


def test_the_folder_of_a_product_s_states_is_the_one_that_dagster_writes(tmp_path: Path) -> None:
    storage = UPathDefsStateStorage.from_config_value(None, {"base_path": str(tmp_path)})  # type: ignore[arg-type]
    folder = storage._get_state_path(state_key("orders"), "0").parent.name
    assert f"`dagster/defs-state/{folder}`" in section("Remove a product")
    assert state_key("orders") in section("Remove a product")


def test_the_right_that_stays_is_named_as_the_bootstrap_names_it() -> None:
    namespaces = ("customer_360", "iot_telemetry", "financial_risk", "orders")
    role = f"floe{'_'.join(('', *namespaces))}_writer"
    source = (ROOT / "floe_dagster" / "platform" / "polaris_bootstrap.py").read_text()
    assert 'f"floe{scope}_writer"' in source and 'scope = "_".join(("", *self.asked.namespaces))' in source
    assert f"/catalogs/production/catalog-roles/{role}" in section("Remove a product")


def test_every_command_of_floe_dagster_is_one() -> None:
    commands = re.findall(r"floe-dagster ((?:platform|lineage|telemetry|show|compile)[^\n`;&|]*)", PAGE)
    assert len(commands) > 8
    for command in commands:
        words = command.split("#")[0].strip().rstrip("'").split()
        if words == ["platform"] or "…" in command:
            continue
        build_parser().parse_args(words)


def test_every_object_of_kubectl_is_one_of_the_chart() -> None:
    kinds = {"deploy": "Deployment", "deployment": "Deployment", "job": "Job", "svc": "Service"}
    charts = [platform(), *(rendered(values) for values in VALUE_FILES)]
    known = {(d["kind"], d["metadata"]["name"]) for chart in charts for d in chart.documents}
    known |= {("Deployment", "floe-platform-dagster-user-deployments-orders")}
    named = re.findall(r"\b(deploy|deployment|job|svc)[/ ](floe-platform-[\w-]*\w)(?![\w…<-])", PAGE)
    assert len(named) > 8
    assert {(kinds[kind], name) for kind, name in named} <= known


def test_scripts_of_the_toolbox_are_there() -> None:
    scripts = set(re.findall(r"< production/([\w.]+)", PAGE))
    scripts -= {"dagster.dump", "marquez.dump"}
    assert scripts == {path.name for path in (ROOT / "deploy" / "production").glob("*.py")}


def test_what_a_code_server_lacks_the_page_says() -> None:
    from tests.deploy.chart import pods

    server = platform().pod("Deployment/floe-platform-dagster-user-deployments-customer-360")
    assert "floe-runs" not in pods.needed_secrets(server)
    external = yaml.safe_load((ROOT / "deploy" / "production" / "values.yaml").read_text())["networkPolicy"]
    policy = platform().named("NetworkPolicy", "floe-platform-code-servers")["spec"]["egress"]
    catalog, telemetry = external["external"]["catalog"], external["external"]["telemetry"]
    assert not any(rule in policy for rule in catalog) and all(rule in policy for rule in telemetry)
