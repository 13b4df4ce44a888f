"""The platform of `deploy/production`: values, manifest and toolbox fit the chart, and each other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config_schema
from dagster._core.storage.defs_state.blob_storage_state_storage import UPathDefsStateStorage

from floe_dagster.schemas.resources import ResourcePreset
from tests.conftest import ROOT
from tests.deploy.chart import pods
from tests.deploy.chart.rendering import (
    KUBERNETES,
    RELEASE,
    Document,
    chart_folder,
    render,
    run_helm,
    template,
    value_file,
)
from tests.deploy.chart.runs import dagster_yaml, launcher, run_job
from tests.deploy.chart.test_manifests import NEWEST, OLDEST, refused
from tests.deploy.chart.test_pods import unbounded
from tests.deploy.chart.test_values import images
from tests.deploy.production.platform import (
    FOLDER,
    MANIFEST,
    VALUES,
    deployments,
    manifest,
    platform,
    toolbox,
    values,
)

LOCATIONS = [entry["name"] for entry in deployments()]


def all_pods() -> dict[str, Document]:
    runs = {f"run of {name}": run_job(platform(), name)["spec"]["template"] for name in LOCATIONS}
    return {**dict(platform().pods()), **runs, "toolbox": toolbox()}


def test_helm_finds_nothing_to_say() -> None:
    done = run_helm(
        *("lint", "--strict", str(chart_folder()), "--values", str(VALUES)),
        *("--set-file", f"manifest={MANIFEST}", "--namespace", "floe", "--kube-version", KUBERNETES),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 chart(s) failed" in done.stdout and "WARNING" not in done.stdout


def test_a_misspelt_key_of_the_file_is_refused(tmp_path: Path) -> None:
    spoilt = tmp_path / "values.yaml"
    spoilt.write_text(VALUES.read_text().replace("postgresqlHost:", "postgresHost:"))
    done = template(str(spoilt), manifest=MANIFEST)
    assert done.returncode != 0 and "postgresHost" in done.stderr


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_every_document(version: str) -> None:
    assert refused(list(platform().documents), version) == []
    assert refused([toolbox(), *(run_job(platform(), name) for name in LOCATIONS)], version) == []


@pytest.mark.parametrize(
    "rule",
    [pods.insecure, pods.writable_roots, pods.without_bounds, pods.moving_images, pods.plain_secrets],
    ids=lambda rule: rule.__name__,
)
def test_every_pod_is_as_the_chart_s_own_are(rule: Any) -> None:
    found = {name: list(rule(pod)) for name, pod in all_pods().items()}
    assert len(found) >= 10
    assert {name: what for name, what in found.items() if what} == {}


def test_no_pod_fills_its_node_s_disk() -> None:
    assert unbounded(all_pods()) == {}


def test_nothing_of_the_chart_s_own_runs_that_is_said_to_run_elsewhere() -> None:
    assert not platform().of("StatefulSet", "Secret", "PersistentVolumeClaim")
    names = {document["metadata"]["name"] for document in platform().of("Deployment")}
    assert names == {
        f"{RELEASE}-dagster-webserver",
        f"{RELEASE}-dagster-daemon",
        *(f"{RELEASE}-dagster-user-deployments-{name}" for name in LOCATIONS),
    }
    hook = platform().named("Job", f"{RELEASE}-bootstrap")
    assert "pre-install" in hook["metadata"]["annotations"]["helm.sh/hook"]


def test_secrets_are_those_that_the_page_tells_how_to_make() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    made = dict(re.findall(r"^put (\S+) +# (.*)$", page, re.MULTILINE))
    needed = set().union(*(pods.needed_secrets(pod) for pod in all_pods().values()))
    assert needed == {"floe-runs", "floe-storage", "floe-postgresql", "floe-catalog-admin"}
    assert needed <= set(made)
    for name in re.findall(r"\$\{(\w+)\}|\{env: (\w+)\}", MANIFEST.read_text()):
        assert "".join(name) in made["floe-runs"]
    for pod in all_pods().values():
        for container in pods.containers(pod):
            for entry in container.get("env") or []:
                if reference := (entry.get("valueFrom") or {}).get("secretKeyRef"):
                    assert reference["key"] in made[reference["name"]]


def test_one_image_one_tag_and_a_secret_to_pull_it_everywhere() -> None:
    written = values()
    image = {key: written["image"][key] for key in ("repository", "tag", "pullPolicy")}
    assert [i for i in images(written) if {k: i[k] for k in image} != image] == []
    started = {c["image"] for pod in all_pods().values() for c in pod["spec"]["containers"]}
    assert started == {f"{image['repository']}:{image['tag']}"}
    pull = [{"name": "registry"}]
    subchart = written["dagster"]["dagster-user-deployments"]
    assert written["image"]["pullSecrets"] == pull
    assert written["dagster"]["imagePullSecrets"] == subchart["imagePullSecrets"] == pull
    bootstrap = platform().pod(f"Job/{RELEASE}-bootstrap")["spec"]
    assert bootstrap["imagePullSecrets"] == toolbox()["spec"]["imagePullSecrets"] == pull
    page = (ROOT / "docs" / "operations.md").read_text()
    assert "create secret generic registry --type=kubernetes.io/dockerconfigjson" in page


def test_locations_are_the_chart_s_with_another_image_and_database() -> None:
    theirs = value_file("values.yaml")["dagster"]["dagster-user-deployments"]["deployments"]
    host = values()["dagster"]["postgresql"]["postgresqlHost"]
    for own, entry in zip(deployments(), theirs, strict=True):
        wait = {**entry["initContainers"][0]}
        wait["command"] = [*wait["command"][:-1], host]
        assert own == {**entry, "image": own["image"], "initContainers": [wait]}


def test_a_location_has_its_product_s_preset() -> None:
    known = yaml.safe_load(MANIFEST.read_text())["resource_presets"]
    for entry in deployments():
        spec = ROOT / "products" / entry["name"].replace("-", "_") / "floe.yaml"
        preset = ResourcePreset.model_validate(known[yaml.safe_load(spec.read_text())["resources"]])
        assert entry["resources"] == preset.to_kubernetes(), entry["name"]


def test_the_principal_may_write_the_namespaces_of_the_products_and_no_others() -> None:
    slugs = [name.replace("-", "_") for name in LOCATIONS]
    assert values()["bootstrap"]["namespaces"] == slugs
    bootstrap = platform().pod(f"Job/{RELEASE}-bootstrap")["spec"]
    for container in pods.containers({"spec": bootstrap}):
        given = [
            b for a, b in zip(container["args"], container["args"][1:], strict=False) if a == "--namespace"
        ]
        assert given == slugs


def test_dagster_keeps_states_and_logs_in_the_manifest_s_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    config = dagster_yaml(platform())
    processed = process_config(dagster_instance_config_schema(), config)
    assert processed.success, processed.errors
    storage = manifest().plugins.storage
    assert storage is not None and storage.type == "s3"
    wanted = storage.config
    logs = config["compute_logs"]["config"]
    assert (logs["bucket"], logs["endpoint_url"], logs["region"]) == (
        wanted.bucket,
        wanted.endpoint,
        wanted.region,
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    states = UPathDefsStateStorage.from_config_value(None, config["defs_state_storage"]["config"])  # type: ignore[arg-type]
    assert str(states.base_path) == f"s3://{wanted.bucket}/dagster/defs-state"
    system: Any = states.base_path.fs
    assert system.endpoint_url == wanted.endpoint
    assert system.client_kwargs["region_name"] == wanted.region
    database = config["run_storage"]["config"]["postgres_db"]
    assert database["hostname"] == values()["dagster"]["postgresql"]["postgresqlHost"]
    assert database["params"] == {"sslmode": "require"} and database["scheme"] == "postgresql+psycopg2"
    assert launcher(platform()).job_namespace == "floe"


def test_the_network_is_opened_for_every_address_of_the_manifest() -> None:
    found = manifest()
    plugins, observability = found.plugins, found.observability
    assert plugins.catalog is not None and plugins.storage is not None and plugins.lineage_backend is not None
    assert observability is not None and observability.tracing and observability.lineage
    addresses = {
        "storage": plugins.storage.config.endpoint,  # type: ignore[union-attr]
        "catalog": plugins.catalog.config.uri,  # type: ignore[union-attr]
        "telemetry": observability.tracing.endpoint,
        "lineage": observability.lineage.endpoint,
    }
    assert plugins.lineage_backend.config.url == observability.lineage.endpoint
    external = values()["networkPolicy"]["external"]
    ports = {
        name: {port["port"] for rule in rules for port in rule["ports"]} for name, rules in external.items()
    }
    assert ports == {
        **{name: {urlsplit(str(url)).port or 443} for name, url in addresses.items()},
        "postgresql": {5432},
    }
    runs = platform().named("NetworkPolicy", f"{RELEASE}-runs")["spec"]
    for rules in external.values():
        assert all(rule in runs["egress"] for rule in rules)
    # Nothing is open to everybody.
    blocks = re.findall(r"cidr: ?\"?([\d./]+)", yaml.safe_dump(list(platform().documents)))
    assert blocks and "0.0.0.0/0" not in blocks


def test_the_toolbox_has_what_a_run_has_and_nothing_else() -> None:
    pod, run = toolbox(), run_job(platform(), "customer-360")["spec"]["template"]
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    theirs = run["spec"]["containers"][0]
    assert pods.needed_secrets(pod) == pods.needed_secrets(run)
    assert pods.mounted_config_maps(pod) == pods.mounted_config_maps(run)
    assert container["volumeMounts"] == [m for m in theirs["volumeMounts"] if m["name"] != "dagster-instance"]
    assert spec["securityContext"] == run["spec"]["securityContext"]
    assert container["securityContext"] == theirs["securityContext"]
    assert spec["serviceAccountName"] == run["spec"]["serviceAccountName"]
    # Of two values with one name the last one counts.
    given = {entry["name"]: entry for entry in theirs["env"]}
    for entry in container["env"]:
        assert {k: v for k, v in given[entry["name"]].items() if v is not None} == entry
    policy = platform().named("NetworkPolicy", f"{RELEASE}-runs")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    for budget in platform().of("PodDisruptionBudget", "Service"):
        selector = budget["spec"]["selector"]
        labels = selector.get("matchLabels", selector)
        assert not labels.items() <= pod["metadata"]["labels"].items(), budget["metadata"]["name"]
    assert 0 < spec["activeDeadlineSeconds"] <= 4 * 3600 and spec["automountServiceAccountToken"] is False


def test_the_folder_holds_no_secret_and_the_page_names_all_of_it() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    files = {path.name for path in FOLDER.iterdir() if path.is_file()}
    assert files == set(re.findall(r"`([\w-]+\.(?:yaml|py))`", page[: page.index("### Secrets")])) & files
    assert "-f production/values.yaml --set-file manifest=production/manifest.yaml" in page
    for name in files:
        text = (FOLDER / name).read_text()
        assert not re.search(r"(?i)(password|secret_?key|client_secret): [\"']?\w{6,}", text), name


def test_the_products_compile_for_it(tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("floe-dagster"))
    products = [f"products/{name.replace('-', '_')}" for name in LOCATIONS]
    done = subprocess.run(
        [program, "compile", "--manifest", str(MANIFEST), "--output", str(tmp_path / "out"), *products],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "FLOE_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_fourth_product_is_one_entry_and_one_namespace_more(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    (entry,) = re.findall(
        r"```yaml\n(      - <<: \*code-location\n        name: orders\n.*?)```", page, re.DOTALL
    )
    text = VALUES.read_text()
    text = text.replace("\n  computeLogManager:", f"{entry}\n  computeLogManager:", 1)
    text = text.replace("financial_risk]", "financial_risk, orders]", 1)
    (tmp_path / "values.yaml").write_text(text)
    chart = render(str(tmp_path / "values.yaml"), manifest=MANIFEST)
    before = {name for name, _ in platform().pods()}
    added = {name: pod for name, pod in chart.pods() if name not in before}
    (name, pod), *others = added.items()
    assert not others and name == f"Deployment/{RELEASE}-dagster-user-deployments-orders"
    assert "orders.definitions" in pod["spec"]["containers"][0]["args"]
    assert "orders" in chart.named("Pod", f"{RELEASE}-test")["spec"]["containers"][0]["args"]
    bootstrap = chart.pod(f"Job/{RELEASE}-bootstrap")["spec"]
    assert all("orders" in c["args"] for c in pods.containers({"spec": bootstrap}))
    assert run_job(chart, "orders")["spec"]["template"]["spec"]["containers"][0]["image"] == (
        "registry.example.com/data/products:1.4.0"
    )


def test_a_second_role_and_secret_of_the_database_reach_everybody() -> None:
    changes = {
        "global": {"postgresqlSecretName": "floe-postgresql-b"},
        "dagster": {"postgresql": {"postgresqlUsername": "dagster_b"}},
    }
    chart = render(str(VALUES), manifest=MANIFEST, changes=changes)
    found = [pod for _, pod in chart.pods()] + [
        run_job(chart, name)["spec"]["template"] for name in LOCATIONS
    ]
    secrets = set().union(*(pods.needed_secrets(pod) for pod in found))
    assert "floe-postgresql-b" in secrets and "floe-postgresql" not in secrets
    for storage in ("run_storage", "event_log_storage", "schedule_storage"):
        assert dagster_yaml(chart)[storage]["config"]["postgres_db"]["username"] == "dagster_b"
