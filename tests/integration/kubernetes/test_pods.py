"""What Kubernetes is told of a product's jobs and steps, as dagster-k8s makes pods of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster_k8s.job import DagsterK8sJobConfig, construct_dagster_k8s_job, get_user_defined_k8s_config

from floe_dagster import load_product_definitions
from floe_dagster.home import FloeHome
from tests.conftest import MANIFEST, SPEC
from tests.locations import bake

pytestmark = pytest.mark.slow

JOBS = {
    "shop_compile": "compile",
    "shop_run": "run",
    "shop_maintenance": "maintenance",
    "shop_platform_check": "health",
}
OF_THE_LAUNCHER = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}}
FLAT = {"cpu_request": "250m", "cpu_limit": "1", "memory_request": "512Mi", "memory_limit": "1Gi"}
NESTED = {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
PLUGINS = """\
plugins:
  catalog:
    type: polaris
    config:
      uri: http://polaris/api/catalog
      warehouse: floe
      oauth2: {client_id: floe-etl, client_secret: {secret: polaris, key: client-secret}}
  storage: {type: s3, config: {bucket: b, access_key_id: a, secret_access_key: {secret: s3, key: k, env: S3_SECRET}}}
observability:
  lineage: {transport: http, endpoint: http://127.0.0.1:1, api_key: {secret: lineage, key: token, env: LINEAGE_TOKEN}}
"""
NAME = re.compile(r"^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")
VALUE = re.compile(r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$")
"""Kubernetes' syntax of labels: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels"""


def compiled(shop: Path, home: FloeHome, manifest: str = "", spec: str = "") -> dg.Definitions:
    """Compile the shop and return the definitions that its code location serves."""
    (shop.parent / "manifest.yaml").write_text(MANIFEST + manifest)
    (shop / "floe.yaml").write_text(spec if "kind:" in spec else SPEC + spec)
    bake(shop, home)
    return load_product_definitions(shop)


def presets(**by_name: Any) -> str:
    return yaml.safe_dump({"resource_presets": by_name})


def pod(tags: dict[str, str]) -> dict[str, Any]:
    """Return the job that dagster-k8s makes of tags, on a launcher with settings of its own."""
    launcher = DagsterK8sJobConfig(
        job_image="image",
        dagster_home="/opt/dagster",
        resources=OF_THE_LAUNCHER,
        labels={"team": "data"},
        volumes=[{"name": "home", "emptyDir": {}}],
        volume_mounts=[{"name": "home", "mountPath": "/var/lib/floe"}],
    )
    made: dict[str, Any] = construct_dagster_k8s_job(
        launcher,
        ["dagster", "api", "execute_run"],
        "dagster-run-1",
        get_user_defined_k8s_config(tags),
        component="run_worker",
        labels={"dagster/job": "job"},
    ).to_dict()
    return made


def both(definitions: dg.Definitions, name: str) -> list[dict[str, Any]]:
    """Return the pod of a job's run, and the pod that its first step would have."""
    job = definitions.resolve_job_def(name)
    node = next(node for node in job.nodes if ("platform_health" in node.name) is (JOBS[name] == "health"))
    return [pod(dict(job.tags)), pod(dict(node.definition.tags))]


def container(made: dict[str, Any]) -> dict[str, Any]:
    [found] = made["spec"]["template"]["spec"]["containers"]
    result: dict[str, Any] = found
    return result


def resources(made: dict[str, Any]) -> dict[str, Any]:
    given = container(made)["resources"]
    return {kind: given[kind] for kind in ("requests", "limits") if given.get(kind)}


def secrets(made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        entry["name"]: entry["value_from"]["secret_key_ref"]
        for entry in container(made)["env"]
        if entry.get("value_from")
    }


@pytest.mark.parametrize("job", JOBS)
def test_the_preset_is_what_runs_and_steps_ask_for(shop: Path, home: FloeHome, job: str) -> None:
    definitions = compiled(shop, home, presets(small=FLAT), "resources: small\n")
    for made in both(definitions, job):
        assert resources(made) == NESTED


def test_both_shapes_of_a_preset_give_the_same_pod(shop: Path, home: FloeHome) -> None:
    manifest = presets(flat=FLAT, nested=NESTED)
    [flat, nested] = [
        resources(both(compiled(shop, home, manifest, f"resources: {name}\n"), "shop_run")[0])
        for name in ("flat", "nested")
    ]
    assert flat == nested == NESTED


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ({"cpu_limit": 2}, {"limits": {"cpu": "2"}}),
        ({"cpu_request": 0.5}, {"requests": {"cpu": "0.5"}}),
        ({"memory_request": "1.5Gi"}, {"requests": {"memory": "1.5Gi"}}),
        ({"limits": {"memory": 1073741824}}, {"limits": {"memory": "1073741824"}}),
        (
            {"memory_request": "1000M", "memory_limit": "1G"},
            {"requests": {"memory": "1000M"}, "limits": {"memory": "1G"}},
        ),
    ],
)
def test_quantities_arrive_as_they_were_written(
    shop: Path, home: FloeHome, preset: dict[str, Any], expected: dict[str, Any]
) -> None:
    definitions = compiled(shop, home, presets(own=preset), "resources: own\n")
    assert resources(both(definitions, "shop_run")[0]) == expected


def test_without_a_preset_the_launchers_resources_stay(shop: Path, home: FloeHome) -> None:
    for made in both(compiled(shop, home), "shop_run"):
        assert resources(made) == OF_THE_LAUNCHER


@pytest.mark.parametrize("job", JOBS)
def test_secrets_are_references_in_the_pods_that_need_them(shop: Path, home: FloeHome, job: str) -> None:
    definitions = compiled(shop, home, PLUGINS)
    for made in both(definitions, job):
        # What mends the name of a Secret must start without it.
        optional = True if job == "shop_compile" else None
        assert secrets(made) == {
            "FLOE_SECRET_POLARIS_CLIENT_SECRET": {
                "name": "polaris",
                "key": "client-secret",
                "optional": optional,
            },
            "S3_SECRET": {"name": "s3", "key": "k", "optional": optional},
            "LINEAGE_TOKEN": {"name": "lineage", "key": "token", "optional": optional},
        }


@pytest.mark.parametrize("job", JOBS)
def test_pods_are_labelled_by_product_and_task(shop: Path, home: FloeHome, job: str) -> None:
    definitions = compiled(shop, home, presets(small=FLAT), "resources: small\n")
    for made in both(definitions, job):
        template = made["spec"]["template"]["metadata"]
        for labels in (template["labels"], made["metadata"]["labels"]):
            assert labels["floe.dev/product"] == "shop"
            assert labels["floe.dev/task"] == JOBS[job]
            assert labels["floe.dev/version"] == "1.0.0"
            assert labels["floe.dev/preset"] == "small"
            # Those of Dagster and of the launcher stay.
            assert labels["app.kubernetes.io/component"] == "run_worker"
            assert labels["dagster/job"] == "job" and labels["team"] == "data"
        assert template["annotations"]["floe.dev/owner"] == "shop@example.com"
        assert template["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
        assert template["annotations"]["karpenter.sh/do-not-disrupt"] == "true"


def test_free_labels_of_a_product_become_labels_that_kubernetes_takes(shop: Path, home: FloeHome) -> None:
    document = yaml.safe_load(SPEC)
    document["metadata"]["labels"] = {
        "domain": "Sales & Ops!",
        "cost centre": "x" * 100,
        "product": "other",
        "dir": "/a/b/",
        "ü": "é",
        "long " * 30: "name",
    }
    definitions = compiled(shop, home, spec=yaml.safe_dump(document))
    labels = both(definitions, "shop_run")[0]["spec"]["template"]["metadata"]["labels"]
    for name, value in labels.items():
        assert NAME.match(name), name
        assert VALUE.match(value), value
    assert labels["floe.dev/label-domain"] == "Sales___Ops"
    assert labels["floe.dev/label-dir"] == "a_b"
    assert labels["floe.dev/product"] == "shop" and labels["floe.dev/label-product"] == "other"


def test_volumes_of_the_launcher_stay(shop: Path, home: FloeHome) -> None:
    for made in both(compiled(shop, home, presets(small=FLAT), "resources: small\n"), "shop_run"):
        assert container(made)["volume_mounts"][0]["mount_path"] == "/var/lib/floe"
        assert made["spec"]["template"]["spec"]["volumes"][0]["name"] == "home"


def test_a_products_run_is_one_step_in_the_pod_of_the_run(shop: Path, home: FloeHome) -> None:
    definitions = compiled(shop, home)
    assert len(definitions.resolve_job_def("shop_run").nodes) == 1
    for name in JOBS:
        # Steps are processes of the run's pod; an executor that starts pods would be another.
        assert definitions.resolve_job_def(name).executor_def is dg.multi_or_in_process_executor


@pytest.mark.parametrize("job", ["shop_compile", "shop_run", "shop_maintenance"])
def test_a_run_whose_worker_is_lost_may_be_started_again(shop: Path, home: FloeHome, job: str) -> None:
    tags = compiled(shop, home).resolve_job_def(job).tags
    assert tags["dagster/max_retries"] == "2"
    assert tags["dagster/retry_strategy"] == "FROM_FAILURE"
    assert tags["dagster/retry_on_asset_or_op_failure"] == "false"


def test_before_the_first_compilation_its_pod_is_known_by_the_product(shop: Path) -> None:
    job = load_product_definitions(shop).resolve_job_def("shop_compile")
    made = pod(dict(job.tags))
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert labels["floe.dev/product"] == "shop" and labels["floe.dev/task"] == "compile"
    assert resources(made) == OF_THE_LAUNCHER and not secrets(made)
