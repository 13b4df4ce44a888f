"""Pods of runs, as Dagster's own launcher makes them of the rendered instance and of a location's container context."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any
from unittest import mock

import yaml
from dagster._config import process_config
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.storage.dagster_run import DagsterRun
from dagster_k8s import K8sRunLauncher
from dagster_k8s.job import construct_dagster_k8s_job
from kubernetes.client import ApiClient

from tests.deploy.chart.rendering import RELEASE, Document, Rendered, rendered


def dagster_yaml(chart: Rendered) -> dict[str, Any]:
    """Return the instance's configuration."""
    data = chart.named("ConfigMap", f"{RELEASE}-dagster-instance")["data"]
    loaded: dict[str, Any] = yaml.safe_load(data["dagster.yaml"])
    return loaded


def launcher(chart: Rendered) -> K8sRunLauncher:
    """Return the launcher that the instance configures; Dagster refuses what it does not know."""
    config = dagster_yaml(chart)["run_launcher"]["config"]
    processed = process_config(K8sRunLauncher.config_type(), config)
    assert processed.success, processed.errors
    # It looks for the cluster's own credentials when it is made.
    with mock.patch("kubernetes.config.load_incluster_config"):
        return K8sRunLauncher(**processed.value)


def container_context(chart: Rendered, location: str) -> dict[str, Any]:
    """Return what a location asks for its runs."""
    pod = chart.pod(f"Deployment/{RELEASE}-dagster-user-deployments-{location}")
    (container,) = pod["spec"]["containers"]
    (value,) = [entry["value"] for entry in container["env"] if entry["name"] == "DAGSTER_CONTAINER_CONTEXT"]
    loaded: dict[str, Any] = json.loads(value)
    return loaded


@functools.cache
def _run_pod(values: str, location: str, tags: str) -> str:
    chart = rendered(values)
    return json.dumps(run_job(chart, location, json.loads(tags)))


def run_pod(values: str, location: str = "customer-360", tags: Mapping[str, Any] | None = None) -> Document:
    """Return the pod of a run of a value file's location."""
    loaded: Document = json.loads(_run_pod(values, location, json.dumps(dict(tags or {}))))["spec"][
        "template"
    ]
    return loaded


def run_job(chart: Rendered, location: str, tags: Mapping[str, Any] | None = None) -> Document:
    """Return the Job that starts a run, as the launcher sends it to Kubernetes.

    Args:
        chart: What is installed.
        location: Name of the code location.
        tags: `dagster-k8s/config` of the run's job.
    """
    made = launcher(chart)
    pod = chart.pod(f"Deployment/{RELEASE}-dagster-user-deployments-{location}")
    image = pod["spec"]["containers"][0]["image"]
    origin = RepositoryPythonOrigin(
        executable_path="python",
        code_pointer=ModuleCodePointer("definitions", "defs", "/app/demo"),
        container_image=image,
        entry_point=["dagster"],
        container_context=container_context(chart, location),
    )
    run = DagsterRun(
        job_name="run",
        job_code_origin=JobPythonOrigin(job_name="run", repository_origin=origin),
        tags={"dagster-k8s/config": json.dumps(tags)} if tags else {},
    )
    context = made.get_container_context_for_run(run)
    job = construct_dagster_k8s_job(
        job_config=context.get_k8s_job_config(image, made),
        args=["dagster", "api", "execute_run", "{}"],
        job_name="dagster-run-0",
        component="run_worker",
        user_defined_k8s_config=context.run_k8s_config,
        labels={"dagster/run-id": "0", "dagster/code-location": location},
        env_vars=[{"name": "DAGSTER_RUN_JOB_NAME", "value": "run"}],
    )
    document: Document = ApiClient().sanitize_for_serialization(job)
    return document
