"""Every pod that the chart, or a run, starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import yaml

from floe_dagster.schemas.resources import ResourcePreset, parse_quantity
from tests.conftest import ROOT
from tests.deploy.chart import pods
from tests.deploy.chart.rendering import (
    MANIFEST,
    RELEASE,
    VALUE_FILES,
    Document,
    render,
    rendered,
    value_file,
)
from tests.deploy.chart.runs import run_job, run_pod
from tests.deploy.chart.test_preparation import POLARIS as PREPARED

Rule = Callable[[Document], Iterator[str]]

NOT_OURS = {f"Deployment/{RELEASE}-minio", f"Deployment/{RELEASE}-polaris"}
"""Servers of others that write beside their programs."""
FILTERED = {f"Pod/{RELEASE}-polaris-test-connection"}
"""Tests of other charts, which the documented filter of `helm test` leaves out."""


def all_pods(values: str) -> dict[str, Document]:
    made = {name: pod for name, pod in rendered(values).pods() if name not in FILTERED}
    for location in ("customer-360", "iot-telemetry", "financial-risk"):
        made[f"run of {location}"] = run_pod(values, location)
    return made


def broken(values: str, rule: Rule, apart: set[str] = frozenset()) -> dict[str, list[str]]:  # type: ignore[assignment]
    found = {name: list(rule(pod)) for name, pod in all_pods(values).items() if name not in apart}
    return {name: what for name, what in found.items() if what}


@pytest.mark.parametrize("values", VALUE_FILES)
def test_every_pod_is_restricted(values: str) -> None:
    assert len(all_pods(values)) >= 9
    assert broken(values, pods.insecure) == {}


@pytest.mark.parametrize("values", VALUE_FILES)
def test_no_pod_writes_its_image(values: str) -> None:
    assert broken(values, pods.writable_roots, NOT_OURS) == {}


@pytest.mark.parametrize("values", VALUE_FILES)
@pytest.mark.parametrize(
    "rule", [pods.without_bounds, pods.moving_images, pods.plain_secrets], ids=lambda rule: rule.__name__
)
def test_every_pod_has_bounds_one_image_and_no_secret_in_the_open(values: str, rule: Rule) -> None:
    assert broken(values, rule) == {}


@pytest.mark.parametrize("values", VALUE_FILES)
def test_what_runs_for_ever_is_looked_at(values: str) -> None:
    once = {name for name in all_pods(values) if not name.startswith(("Deployment/", "StatefulSet/"))}
    # The official chart of MinIO has none, and no value for them.
    assert broken(values, pods.without_probes, once | {f"Deployment/{RELEASE}-minio"}) == {}


@pytest.mark.parametrize("values", VALUE_FILES)
def test_only_who_talks_to_kubernetes_has_a_token_that_may_do_something(values: str) -> None:
    chart = rendered(values)
    bindings = chart.of("RoleBinding", "ClusterRoleBinding")
    able = {subject["name"] for binding in bindings for subject in binding["subjects"]}
    assert able == {f"{RELEASE}-dagster"}
    holders = {
        name for name, pod in all_pods(values).items() if pod["spec"].get("serviceAccountName") in able
    }
    assert holders == {f"Deployment/{RELEASE}-dagster-webserver", f"Deployment/{RELEASE}-dagster-daemon"}
    # The official chart gives code servers and their runs a token whatever the values say: of an account without rights.
    fixed = {name for name in all_pods(values) if "user-deployments" in name or name.startswith("run of")}
    ours = (
        set(all_pods(values))
        - holders
        - fixed
        - {f"Deployment/{RELEASE}-{n}" for n in ("minio", "polaris", "otel-collector")}
    )
    assert {
        name: all_pods(values)[name]["spec"].get("automountServiceAccountToken") for name in ours
    } == dict.fromkeys(ours, False)


def test_what_the_values_say_of_every_run_s_pod_is_so() -> None:
    """Of what the instance says and the location says otherwise, the location's counts, and ours would be void."""
    launcher = value_file("values.yaml")["dagster"]["runLauncher"]["config"]["k8sRunLauncher"]
    said = launcher["runK8sConfig"]["podSpecConfig"]
    spec = run_pod("values.yaml")["spec"]
    assert {key: spec.get(key) for key in said} == said


def test_the_launcher_may_do_what_it_does_and_nothing_else() -> None:
    (role,) = rendered("values.yaml").of("Role", "ClusterRole")
    allowed = {
        (resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }
    assert allowed == {
        *{("jobs", verb) for verb in ("create", "get", "list", "delete")},
        ("jobs/status", "get"),
        *{("pods", verb) for verb in ("get", "list", "delete")},
        ("pods/log", "get"),
        ("events", "list"),
    }


STORAGE, RUNS, DATABASE = {"floe-storage"}, {"floe-runs"}, {"floe-postgresql"}
ROOTS = {"floe-store-admin", "floe-catalog-admin"}
PRODUCTS = ("customer-360", "iot-telemetry", "financial-risk")
READS: dict[str, set[str]] = {
    f"Deployment/{RELEASE}-dagster-webserver": STORAGE | DATABASE,
    f"Deployment/{RELEASE}-dagster-daemon": STORAGE | DATABASE,
    **{f"Deployment/{RELEASE}-dagster-user-deployments-{p}": STORAGE | DATABASE for p in PRODUCTS},
    **{f"run of {p}": STORAGE | RUNS | DATABASE for p in PRODUCTS},
    f"StatefulSet/{RELEASE}-postgresql": DATABASE,
    f"Pod/{RELEASE}-test": set(),
}
"""Who reads which Secrets, in every value file. A pod that is not here fails the test: somebody decides about it first."""
IN_THE_RELEASE: dict[str, set[str]] = {
    # Its init container waits with the keys of the state.
    f"Deployment/{RELEASE}-polaris": {"floe-warehouse", "floe-catalog-admin"} | STORAGE,
    f"Deployment/{RELEASE}-minio": {"floe-store-admin"},
    f"Job/{RELEASE}-bootstrap-1": RUNS | STORAGE | ROOTS,
}
MORE: dict[str, dict[str, set[str]]] = {
    "values.yaml": {f"Job/{RELEASE}-bootstrap": RUNS},
    "values-test.yaml": IN_THE_RELEASE,
    "values-demo.yaml": {
        **IN_THE_RELEASE,
        f"Deployment/{RELEASE}-otel-collector": set(),
        f"Deployment/{RELEASE}-marquez": DATABASE,
    },
}


@pytest.mark.parametrize("values", VALUE_FILES)
def test_secrets_reach_only_who_needs_them(values: str) -> None:
    needed = {name: pods.needed_secrets(pod) for name, pod in all_pods(values).items()}
    assert needed == READS | MORE[values]


def test_secrets_are_found_wherever_a_pod_may_read_them() -> None:
    pod = {
        "spec": {
            "initContainers": [{"envFrom": [{"secretRef": {"name": "a"}}]}],
            "containers": [
                {"env": [{"name": "B", "valueFrom": {"secretKeyRef": {"name": "b", "key": "k"}}}]}
            ],
            "volumes": [
                {"name": "c", "secret": {"secretName": "c"}},
                {"name": "d", "projected": {"sources": [{"secret": {"name": "d"}}, {"configMap": {}}]}},
            ],
        }
    }
    assert pods.needed_secrets(pod) == {"a", "b", "c", "d"}


@pytest.mark.parametrize("values", ["values-demo.yaml", "values-test.yaml"])
def test_a_release_with_generated_secrets_has_every_one_that_a_pod_reads(values: str) -> None:
    made = {secret["metadata"]["name"] for secret in rendered(values).of("Secret")}
    missing = {name: pods.needed_secrets(pod) - made for name, pod in all_pods(values).items()}
    assert not any(missing.values()), missing


def test_the_check_after_the_bootstrap_has_no_administrator_s_secret() -> None:
    pod = rendered("values-demo.yaml").pod(f"Job/{RELEASE}-bootstrap-1")
    assert pods.needed_secrets({"spec": {"containers": pod["spec"]["containers"]}}) == {"floe-runs"}


@pytest.mark.parametrize("values", VALUE_FILES)
def test_code_servers_and_runs_see_the_manifest_and_the_instance_as_folders(values: str) -> None:
    expected = {"/etc/floe/manifests": f"{RELEASE}-manifests", "/etc/dagster": f"{RELEASE}-dagster-instance"}
    seen = {
        name: pods.mounted_config_maps(pod)
        for name, pod in all_pods(values).items()
        if "user-deployments" in name or name.startswith("run of")
    }
    assert len(seen) == 6
    assert seen == dict.fromkeys(seen, expected)


@pytest.mark.parametrize("values", VALUE_FILES)
def test_no_two_volumes_share_a_place(values: str) -> None:
    for name, pod in all_pods(values).items():
        for container in pods.containers(pod):
            places = [mount["mountPath"] for mount in container.get("volumeMounts") or []]
            assert len(places) == len(set(places)), (name, container["name"])


def test_a_run_is_one_pod_that_nobody_starts_again_but_dagster() -> None:
    job = run_job(rendered("values.yaml"), "customer-360")
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["ttlSecondsAfterFinished"] == 86400
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    # Of two values with one name the last one counts.
    assert env["DAGSTER_HOME"] == "/etc/dagster"
    assert env["FLOE_MANIFEST"] == "/etc/floe/manifests/manifest.yaml"
    assert pod["securityContext"]["fsGroup"] == 10001
    assert {m["mountPath"]: m.get("subPath") for m in container["volumeMounts"] if m["name"] == "floe"} == {
        "/var/lib/floe": "home",
        "/tmp": "tmp",
    }
    (cache,) = [volume for volume in pod["volumes"] if volume["name"] == "floe"]
    assert cache["emptyDir"] == {"sizeLimit": "20Gi"}


GIB = parse_quantity("1Gi")


def unbounded(found: dict[str, Document]) -> dict[str, str]:
    """Return pods that may fill their node's disk, or would be evicted before their volumes are full."""
    wrong = {}
    for name, pod in found.items():
        request, limit = pods.disk(pod, "requests"), pods.disk(pod, "limits")
        if request is None or limit is None:
            wrong[name] = "no request or limit of ephemeral-storage"
        elif not (request <= limit and pods.scratch(pod) < limit <= pods.scratch(pod) + GIB):
            wrong[name] = f"{request} to {limit} for volumes of {pods.scratch(pod)}"
    return wrong


@pytest.mark.parametrize("values", VALUE_FILES)
def test_a_pod_of_ours_takes_no_more_of_its_node_s_disk_than_its_volumes_may_hold(values: str) -> None:
    others = NOT_OURS | {f"Deployment/{RELEASE}-otel-collector"}
    ours = {name: pod for name, pod in all_pods(values).items() if name not in others}
    # A job's preset replaces what the location says of its main container.
    resources = presets()
    for product in PRODUCTS:
        tags = {"container_config": {"resources": resources[product]}}
        ours[f"run of {product} from its job"] = run_pod(values, product, tags)
    assert len(ours) >= 14
    assert unbounded(ours) == {}


def test_the_preparation_of_polaris_is_bounded_too() -> None:
    chart = render(changes=PREPARED)
    assert unbounded({name: pod for name, pod in chart.pods() if "preparation" in name}) == {}


def test_a_limit_of_one_init_container_counts_for_the_pod() -> None:
    def container(**limits: str) -> Document:
        return {"name": "c", "resources": {"limits": limits}}

    pod = {"spec": {"initContainers": [container(cpu="1")], "containers": [container(), container()]}}
    assert pods.disk(pod, "limits") is None
    pod["spec"]["containers"] = [container(**{"ephemeral-storage": "1Gi"})] * 2
    assert pods.disk(pod, "limits") == 2 * GIB
    pod["spec"]["initContainers"] = [container(**{"ephemeral-storage": "3Gi"})]
    assert pods.disk(pod, "limits") == 3 * GIB


def presets() -> dict[str, Document]:
    """Return the resources of each product's preset, as its jobs' pods get them."""
    known = yaml.safe_load(MANIFEST.read_text())["resource_presets"]
    found = {}
    for spec in sorted((ROOT / "products").glob("*/floe.yaml")):
        product = yaml.safe_load(spec.read_text())
        found[product["metadata"]["name"]] = ResourcePreset.model_validate(
            known[product["resources"]]
        ).to_kubernetes()
    return found


@pytest.mark.parametrize("values", VALUE_FILES)
def test_what_is_started_from_the_pages_may_use_what_its_product_s_preset_says(values: str) -> None:
    assert set(presets()) == {"customer-360", "iot-telemetry", "financial-risk"}
    for location, preset in presets().items():
        resources = run_pod(values, location)["spec"]["containers"][0]["resources"]
        assert resources["limits"] == preset["limits"], location
        if values == "values.yaml":
            assert resources["requests"] == preset["requests"], location


def test_a_preset_of_the_job_wins_over_the_location_s_resources() -> None:
    resources = {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"cpu": "4", "memory": "16Gi"}}
    plain = run_pod("values-demo.yaml")["spec"]["containers"][0]["resources"]
    preset = run_pod("values-demo.yaml", tags={"container_config": {"resources": resources}})
    assert plain != resources
    assert preset["spec"]["containers"][0]["resources"] == resources
