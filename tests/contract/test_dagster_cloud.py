"""`dagster_cloud.yaml`, read as Dagster+ and its Kubernetes agent read it, without either."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from dagster import DagsterInvalidConfigError
from dagster_cloud_cli.config.merger import DagsterCloudConfigDefaultsMerger
from dagster_cloud_cli.config.models import Location, load_dagster_cloud_yaml
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import DagsterK8sJobConfig, construct_dagster_k8s_job
from pydantic import ValidationError

from floe_dagster.schemas.manifest import PlatformManifest
from tests.conftest import ROOT

FILE = ROOT / "dagster_cloud.yaml"
PRODUCTS = {"customer-360", "financial-risk", "iot-telemetry"}


def accepted(text: str) -> dict[str, tuple[Location, K8sContainerContext]]:
    """Return what Dagster+ makes of the file: each location, defaults merged in, and what its pods get.

    Raises:
        Exception: Dagster refuses the file; each of its classes has an exception of its own.
    """
    merged = DagsterCloudConfigDefaultsMerger().process(load_dagster_cloud_yaml(text))
    return {
        location.location_name: (
            location,
            K8sContainerContext.create_from_config(location.container_context or {}),
        )
        for location in merged.locations
    }


def run_pod(context: K8sContainerContext) -> dict[str, Any]:
    """Return the spec of the pod that a run without tags gets."""
    config = DagsterK8sJobConfig(job_image="image", dagster_home="/opt/dagster")
    job = construct_dagster_k8s_job(config, ["dagster"], "run", context.run_k8s_config)
    spec: dict[str, Any] = job.to_dict()["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def locations() -> dict[str, tuple[Location, K8sContainerContext]]:
    return accepted(FILE.read_text())


def test_each_product_is_a_location_of_its_own(
    locations: dict[str, tuple[Location, K8sContainerContext]],
) -> None:
    assert set(locations) == PRODUCTS
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())
    local = {
        entry["python_module"]["location_name"]: entry["python_module"]["module_name"]
        for entry in workspace["load_from"]
    }
    for name, (location, _context) in locations.items():
        assert location.code_source is not None and location.code_source.module_name == local[name]
        assert location.working_directory == "/app/demo"
        assert location.build is not None and location.build.registry


@pytest.mark.parametrize("product", sorted(PRODUCTS))
def test_a_location_gives_its_runs_what_the_products_preset_says(
    locations: dict[str, tuple[Location, K8sContainerContext]], product: str
) -> None:
    spec = yaml.safe_load((ROOT / "products" / product.replace("-", "_") / "floe.yaml").read_text())
    manifest = PlatformManifest.model_validate(yaml.safe_load((ROOT / "manifests" / "demo.yaml").read_text()))
    preset = (manifest.resource_presets or {})[spec["resources"]]
    [container] = run_pod(locations[product][1])["containers"]
    given = container["resources"]
    assert {kind: given[kind] for kind in ("requests", "limits")} == preset.to_kubernetes()


@pytest.mark.parametrize("product", sorted(PRODUCTS))
def test_every_secret_of_the_manifest_reaches_runs_by_reference(
    locations: dict[str, tuple[Location, K8sContainerContext]], product: str
) -> None:
    wanted = environment_references(yaml.safe_load((ROOT / "manifests" / "demo.yaml").read_text()))
    assert wanted
    context = locations[product][1]
    [container] = run_pod(context)["containers"]
    given = {entry["name"]: entry for entry in container["env"]}
    for variable in wanted:
        assert given[variable]["value"] is None
        assert given[variable]["value_from"]["secret_key_ref"]["name"]
    # A code server opens no catalog.
    served = context.server_k8s_config.container_config.get("env", [])
    assert not {entry["name"] for entry in served} & wanted


@pytest.mark.parametrize("product", sorted(PRODUCTS))
def test_pods_write_to_their_volume_alone(
    locations: dict[str, tuple[Location, K8sContainerContext]], product: str
) -> None:
    pod = run_pod(locations[product][1])
    [container] = pod["containers"]
    mounts = {mount["mount_path"]: mount["name"] for mount in container["volume_mounts"]}
    own = {volume["name"] for volume in pod["volumes"] if volume["empty_dir"]}
    assert pod["security_context"]["fs_group"] == 10001
    assert mounts["/var/lib/floe"] in own and mounts["/tmp"] in own
    assert container["security_context"]["read_only_root_filesystem"] is True
    assert container["security_context"]["run_as_non_root"] is True
    assert container["security_context"]["allow_privilege_escalation"] is False


def test_the_image_for_dagster_plus_adds_to_the_demos_image_and_changes_none_of_its_packages() -> None:
    base, plus = (locked(f"requirements-{name}.txt") for name in ("image", "plus"))
    assert base <= plus
    added = {line.split("==")[0] for line in plus - base}
    assert "dagster-cloud" in added
    version = next(line for line in base if line.startswith("dagster=="))
    assert version.replace("dagster==", "dagster-cloud==") in plus


def locked(name: str) -> set[str]:
    """Return the pins of a requirement file, with the Pythons that each is for."""
    lines = (ROOT / name).read_text().splitlines()
    return {line.rstrip(" \\") for line in lines if line[:1].isalnum() and "==" in line}


def environment_references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["env"]} if isinstance(value.get("env"), str) else set()
        return own.union(*(environment_references(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(environment_references(item) for item in value))
    return set()


def first(document: dict[str, Any]) -> dict[str, Any]:
    location: dict[str, Any] = document["locations"][0]
    return location


def runs(document: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = first(document)["container_context"]["k8s"]["run_k8s_config"][
        "container_config"
    ]
    return container


MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], object], set[str]]] = {
    "a misspelt key of a location": (
        lambda d: first(d).update(working_dir=first(d).pop("location_name")),
        {
            "locations.0.location_name: Field required",
            "locations.0.working_dir: Extra inputs are not permitted",
        },
    ),
    "two sources of code": (
        lambda d: first(d)["code_source"].update(python_file="definitions.py"),
        {
            "locations.0.code_source: Value error, only one of the following fields should be defined: module_name, "
            "python_file"
        },
    ),
    "no source of code": (
        lambda d: first(d)["code_source"].clear(),
        {
            "locations.0.code_source: Value error, one of package_name, module_name, python_file, or "
            "autoload_defs_module_name must be specified"
        },
    ),
    "one name twice": (
        lambda d: first(d).update(location_name=d["locations"][1]["location_name"]),
        {"locations: Value error, duplicate location name: iot-telemetry"},
    ),
    "a misspelt key of the build": (
        lambda d: d["defaults"]["build"].update(registr="x"),
        {"defaults.build.registr: Extra inputs are not permitted"},
    ),
    "a misspelt section of the runs": (
        lambda d: first(d)["container_context"]["k8s"].update(run_k8s_confg={}),
        {'Received unexpected config entry "run_k8s_confg" at the root.'},
    ),
    "misspelt resources": (
        lambda d: runs(d).update(resource=runs(d).pop("resources")),
        {"Unexpected keys in model class V1Container: {'resource'}"},
    ),
    "a misspelt reference to a secret": (
        lambda d: d["defaults"]["container_context"]["k8s"]["run_k8s_config"]["container_config"]["env"][
            0
        ].update(value_frm={}),
        {"Unexpected keys in model class V1EnvVar: {'value_frm'}"},
    ),
    "a mount that is no mount": (
        lambda d: d["defaults"]["container_context"]["k8s"]["volume_mounts"][0].update(path="/x"),
        {"Unexpected keys in model class V1VolumeMount: {'path'}"},
    ),
}


def said(error: BaseException) -> set[str]:
    """Return all that is wrong, in Dagster's words, without what would be right."""
    if isinstance(error, ValidationError):
        return {f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()}
    if isinstance(error, DagsterInvalidConfigError):
        return {one.message.partition(" Expected: ")[0] for one in error.errors}
    return {str(error)}


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_mistake_is_refused_by_dagsters_own_classes(mistake: str) -> None:
    document = yaml.safe_load(FILE.read_text())
    accepted(yaml.safe_dump(copy.deepcopy(document)))
    change, expected = MISTAKES[mistake]
    change(document)
    with pytest.raises(Exception) as refused:
        context = accepted(yaml.safe_dump(document))
        # Dagster looks into the depth of a container only where it makes the pod.
        for _location, of_location in context.values():
            run_pod(of_location)
    assert said(refused.value) == expected
