"""The rendered dagster.yaml and workspace.yaml, read by Dagster's own classes."""

from __future__ import annotations

import importlib
from typing import Any

import click
import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config_schema
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.defs_state.blob_storage_state_storage import UPathDefsStateStorage
from dagster._core.workspace.config_schema import process_workspace_config

from tests.deploy.chart.rendering import NAMESPACE, RELEASE, VALUE_FILES, rendered
from tests.deploy.chart.runs import dagster_yaml, launcher

CLASSES = (
    "schedule_storage",
    "run_storage",
    "event_log_storage",
    "run_launcher",
    "run_coordinator",
    "compute_logs",
    "defs_state_storage",
    "local_artifact_storage",
    "scheduler",
)


@pytest.mark.parametrize("values", VALUE_FILES)
def test_dagster_takes_every_field_of_the_instance(values: str) -> None:
    config = dagster_yaml(rendered(values))
    processed = process_config(dagster_instance_config_schema(), config)
    assert processed.success, processed.errors


@pytest.mark.parametrize("values", VALUE_FILES)
@pytest.mark.parametrize("part", CLASSES)
def test_every_class_of_the_instance_is_there_and_takes_its_configuration(
    values: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "any")
    given = dagster_yaml(rendered(values))[part]
    found = getattr(importlib.import_module(given["module"]), given["class"])
    processed = process_config(found.config_type(), given.get("config") or {})
    assert processed.success, processed.errors


@pytest.mark.parametrize("values", VALUE_FILES)
def test_the_instance_is_read_from_a_folder_that_cannot_be_written(values: str, tmp_path: Any) -> None:
    home = tmp_path / "etc" / "dagster"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text(yaml.safe_dump(dagster_yaml(rendered(values))))
    reference = InstanceRef.from_dir(str(home))
    assert reference.settings["run_monitoring"]["enabled"] is True
    assert reference.settings["concurrency"]["pools"] == {"default_limit": 1, "granularity": "op"}
    assert reference.settings["run_retries"]["enabled"] is True
    # Nothing that an instance writes lies in its own folder.
    data = reference.local_artifact_storage_data, reference.compute_logs_data
    assert all(str(home) not in entry.config_yaml for entry in data)
    assert sorted(path.name for path in home.iterdir()) == ["dagster.yaml"]


@pytest.mark.parametrize("values", VALUE_FILES)
def test_compiled_state_lies_in_the_object_store_outside_of_the_warehouse(
    values: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    config = dagster_yaml(rendered(values))["defs_state_storage"]["config"]
    storage = UPathDefsStateStorage.from_config_value(None, config)  # type: ignore[arg-type]
    path = storage._get_state_path("FloeProduct[shop]", "abc")
    assert str(path).startswith("s3://floe-warehouse/dagster/defs-state/")
    endpoint = path.fs.endpoint_url
    assert endpoint == (None if values == "values.yaml" else f"http://{RELEASE}-minio:9000")


@pytest.mark.parametrize("values", VALUE_FILES)
def test_a_lost_worker_is_found_and_gives_back_its_slot(values: str) -> None:
    monitoring = dagster_yaml(rendered(values))["run_monitoring"]
    assert monitoring["enabled"] is True
    assert monitoring["max_resume_run_attempts"] == 0
    assert 0 < monitoring["free_slots_after_run_end_seconds"] <= 60
    assert monitoring["poll_interval_seconds"] <= 60
    retries = dagster_yaml(rendered(values))["run_retries"]
    assert retries == {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}


@pytest.mark.parametrize("values", VALUE_FILES)
def test_runs_are_launched_in_pods_of_their_own(values: str) -> None:
    made = launcher(rendered(values))
    assert made.job_namespace == NAMESPACE
    assert made.instance_config_map == f"{RELEASE}-dagster-instance"
    assert made.postgres_password_secret == "floe-postgresql"


@pytest.mark.parametrize("values", VALUE_FILES)
def test_the_workspace_names_the_three_locations(values: str) -> None:
    data = rendered(values).named("ConfigMap", f"{RELEASE}-dagster-workspace-yaml")["data"]
    config = yaml.safe_load(data["workspace.yaml"])
    assert process_workspace_config(config).success
    servers = [entry["grpc_server"] for entry in config["load_from"]]
    assert [server["location_name"] for server in servers] == [
        "customer-360",
        "iot-telemetry",
        "financial-risk",
    ]
    services = {
        (service["metadata"]["name"], port["port"])
        for service in rendered(values).of("Service")
        for port in service["spec"]["ports"]
    }
    assert {(server["host"], server["port"]) for server in servers} <= services


@pytest.mark.parametrize("values", VALUE_FILES)
def test_the_code_server_takes_its_arguments(values: str) -> None:
    from dagster._cli.code_server import code_server_cli

    for location in ("customer_360", "iot_telemetry", "financial_risk"):
        name = f"Deployment/{RELEASE}-dagster-user-deployments-{location.replace('_', '-')}"
        (container,) = rendered(values).pod(name)["spec"]["containers"]
        assert container["args"][:3] == ["dagster", "code-server", "start"]
        command = code_server_cli.commands["start"]
        parsed = command.make_context("start", list(container["args"][3:]), resilient_parsing=False)
        assert parsed.params["port"] == 3030 and parsed.params["host"] == "0.0.0.0"
        target = {str(k): v for k, v in parsed.params.items() if v}
        assert f"{location}.definitions" in str(target) and "/app/demo" in str(target)
        with pytest.raises(click.UsageError):
            command.make_context("start", [*container["args"][3:], "--module"], resilient_parsing=False)
