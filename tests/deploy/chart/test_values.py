"""The three value files: what they promise, what they refuse, and that nothing in them is without effect."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.deploy.chart.rendering import (
    CHART,
    KUBERNETES,
    MANIFEST,
    VALUE_FILES,
    chart_folder,
    chart_metadata,
    needed,
    run_helm,
    template,
    value_file,
)
from tests.deploy.chart.test_outbox import mounted

SUBCHARTS = ("dagster", "polaris", "minio", "otel-collector", "global")
PRODUCTS = ("customer-360", "iot-telemetry", "financial-risk")


def locked(package: str) -> str:
    (version,) = re.findall(rf"^{package}==(\S+)", (ROOT / "requirements.txt").read_text(), re.M)
    return str(version)


def locations(values: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = value_file(values)["dagster"]["dagster-user-deployments"]["deployments"]
    return found


def images(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "repository" in value and "tag" in value:
            yield value
        for inner in value.values():
            yield from images(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from images(inner)


@pytest.mark.parametrize("values", VALUE_FILES)
def test_helm_finds_nothing_to_say(values: str) -> None:
    done = run_helm(
        *("lint", "--strict", str(chart_folder()), "--values", str(chart_folder() / values)),
        *(needed() if values == "values.yaml" else ()),
        *("--set-file", f"manifest={MANIFEST}", "--namespace", "floe", "--kube-version", KUBERNETES),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 chart(s) failed" in done.stdout and "WARNING" not in done.stdout


def test_versions_agree_with_the_package_and_the_lock() -> None:
    chart = chart_metadata()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert chart["version"] == chart["appVersion"] == version
    dependencies = {entry["name"]: entry for entry in chart["dependencies"]}
    assert dependencies["dagster"]["version"] == locked("dagster")
    assert all(
        entry["condition"] == f"{entry.get('alias', entry['name'])}.enabled"
        for entry in dependencies.values()
    )
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", entry["version"]) for entry in dependencies.values())
    for values in VALUE_FILES:
        ours = [image for image in images(value_file(values)) if image["repository"] == "floe-dagster-demo"]
        assert len(ours) >= 5
        assert {image["tag"] or version for image in ours} == {version}
    waits = {
        c["name"]: c["image"] for v in VALUE_FILES for entry in locations(v) for c in entry["initContainers"]
    }
    assert waits["wait-for-bucket"] == f"floe-dagster-demo:{version}"
    database = value_file("values.yaml")["postgresql"]["image"]
    assert waits["wait-for-database"] == f"{database['repository']}:{database['tag']}"


@pytest.mark.parametrize("values", ["values-test.yaml", "values-demo.yaml"])
def test_an_image_that_no_registry_has_is_never_pulled(values: str) -> None:
    dagster = value_file(values)["dagster"]
    for part in ("dagsterWebserver", "dagsterDaemon"):
        assert dagster[part]["image"] == {
            "repository": "floe-dagster-demo",
            "tag": "0.1.0",
            "pullPolicy": "Never",
        }
    assert dagster["runLauncher"]["config"]["k8sRunLauncher"]["imagePullPolicy"] == "Never"
    assert {entry["image"]["pullPolicy"] for entry in locations(values)} == {"Never"}
    assert "Never" not in (CHART / "values.yaml").read_text()


@pytest.mark.parametrize("values", ["values-test.yaml", "values-demo.yaml"])
def test_polaris_is_one_released_version_with_its_reason_beside_it(values: str) -> None:
    assert value_file(values)["polaris"]["image"]["tag"] == "1.4.1"
    text = (CHART / values).read_text()
    comment = text[: text.index("tag: 1.4.1")].rpartition("image:")[2]
    for fact in ("1.2.1-incubating", "never released", "PyIceberg 0.12.0", "1.4.1"):
        assert fact in comment


@pytest.mark.parametrize("values", VALUE_FILES)
def test_three_locations_from_one_working_directory(values: str) -> None:
    assert tuple(entry["name"] for entry in locations(values)) == PRODUCTS
    for entry in locations(values):
        slug = entry["name"].replace("-", "_")
        assert entry["codeServerArgs"] == [
            "--module-name",
            f"{slug}.definitions",
            "--working-directory",
            "/app/demo",
        ]
        assert (ROOT / "products" / slug / "definitions.py").is_file()
        assert "dagsterApiGrpcArgs" not in entry


def test_locations_differ_between_the_files_where_they_have_to() -> None:
    one = {values: locations(values)[0] for values in VALUE_FILES}
    for values, entry in one.items():
        rest = [
            {k: v for k, v in e.items() if k not in ("name", "codeServerArgs", "resources")}
            for e in locations(values)
        ]
        assert rest[0] == rest[1] == rest[2]
        base = one["values.yaml"]
        assert set(entry) == set(base)
        for same in ("volumeMounts", "podSecurityContext", "securityContext", "envSecrets", "port"):
            assert entry[same] == base[same], (values, same)
        assert [e["name"] for e in entry["env"]] == [e["name"] for e in base["env"]]


@pytest.mark.parametrize("values", VALUE_FILES)
def test_no_file_holds_a_secret(values: str) -> None:
    secret = re.compile(r"(?i)(password|secret_?(access_?)?key|token|credential)s?$")
    found = [
        ".".join(path)
        for path, value in leaves(value_file(values))
        if secret.search(path[-1]) and isinstance(value, str) and value
    ]
    # These name the key of a Secret.
    assert set(found) <= {f"polaris.persistence.relationalJdbc.secret.{key}" for key in ("password",)}


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("", "manifst"),
        ("", "networkPolicies"),
        ("image", "pullpolicy"),
        ("secrets", "run"),
        ("externalSecrets.store", "nmae"),
        ("bootstrap", "waitSecond"),
        ("postgresql.storage", "storageClass"),
        ("marquez.database", "user"),
        ("networkPolicy", "webserverIngress"),
        ("networkPolicy.external", "store"),
        ("networkPolicy.kubernetesApi", "cidr"),
        ("podDisruptionBudgets", "codeservers"),
        ("podDisruptionBudgets.webserver", "maxUnavailabel"),
        ("rbac", "enabled"),
        ("bootstrap.resources.limits", "memroy"),
        ("outbox", "enabled"),
        ("outbox.persistence", "claim"),
        ("polarisPreparation", "realms"),
        ("polarisPreparation.image", "tag"),
        ("dagster.dagsterWebserver", "replicas"),
        ("dagster.dagsterDaemon.runMonitoring", "freeSlotsAfterRunEnd"),
        ("dagster.runLauncher.config.k8sRunLauncher", "securityContex"),
        ("dagster.computeLogManager.config.s3ComputeLogManager", "endpoint"),
        ("polaris", "extraInitContainer"),
        ("minio", "existingSecretName"),
        ("otel-collector", "securitycontext"),
    ],
)
def test_a_misspelt_key_is_refused_by_name(path: str, key: str) -> None:
    changes: dict[str, Any] = {key: {}}
    for part in reversed(path.split(".") if path else []):
        changes = {part: changes}
    done = template("values-demo.yaml", changes=changes)
    assert done.returncode != 0
    assert key in done.stderr


@pytest.mark.parametrize("key", ["codeServerArg", "volumeMount", "podSecuritycontext"])
def test_a_misspelt_key_of_a_location_is_refused_by_name(key: str) -> None:
    entries = copy.deepcopy(locations("values.yaml"))
    entries[1][key] = []
    done = template(changes={"dagster": {"dagster-user-deployments": {"deployments": entries}}})
    assert done.returncode != 0
    assert key in done.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"postgresql": {"image": {"tag": "latest"}}}, "postgresql.image.tag"),
        ({"image": {"tag": "latest"}}, "image.tag"),
        ({"bootstrap": {"mode": "later"}}, "bootstrap.mode"),
        ({"bootstrap": {"retries": -1}}, "bootstrap.retries"),
        ({"postgresql": {"storage": {"size": "twenty"}}}, "postgresql.storage.size"),
        ({"networkPolicy": {"kubernetesApi": {"cidrs": []}}}, "kubectl get endpoints kubernetes"),
        ({"networkPolicy": {"kubernetesApi": {"cidrs": ["10.0.0.1"]}}}, "networkPolicy.kubernetesApi.cidrs"),
        ({"networkPolicy": {"dns": {"peers": []}}}, "networkPolicy.dns.peers"),
        ({"networkPolicy": {"dns": {"podSelector": {}}}}, "podSelector"),
        ({"podDisruptionBudgets": {"webserver": {"minAvailable": 1}}}, "podDisruptionBudgets.webserver"),
        (
            {"dagster": {"postgresql": {"postgresqlHost": "db"}}},
            "set one to the other, or postgresql.enabled=false",
        ),
        ({"secrets": {"generate": True}, "externalSecrets": {"enabled": True}}, "exclude each other"),
        ({"externalSecrets": {"enabled": True}}, "externalSecrets.store.name is empty"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(changes: dict[str, Any], said: str) -> None:
    done = template(changes=changes)
    assert done.returncode != 0
    place = re.sub(r"[./]", " ", done.stderr)
    assert said in done.stderr or re.sub(r"[./]", " ", said) in place


def test_a_release_with_another_name_says_what_has_to_change() -> None:
    done = template(release="data")
    assert done.returncode != 0
    assert "dagster.postgresql.postgresqlHost" in done.stderr and "data-postgresql" in done.stderr


def test_without_a_manifest_nothing_is_installed(tmp_path: Path) -> None:
    assert "--set-file manifest=" in template(manifest=None).stderr
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1,")
    assert "manifest is no YAML" in template(manifest=broken).stderr
    other = tmp_path / "floe.yaml"
    other.write_text("kind: FloeSpec\n")
    assert 'kind is "FloeSpec"' in template(manifest=other).stderr


def test_dagster_api_grpc_is_refused() -> None:
    entries = copy.deepcopy(locations("values.yaml"))
    entries[0]["dagsterApiGrpcArgs"] = entries[0].pop("codeServerArgs")
    done = template(changes={"dagster": {"dagster-user-deployments": {"deployments": entries}}})
    assert "use codeServerArgs" in done.stderr


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path, value


OTHERS: dict[str, Any] = {
    "manifest": "kind: Manifest\nmetadata: {name: other}\n",
    "parentManifests": {"parent.yaml": "kind: Manifest\n"},
    "image.pullPolicy": "Always",
    "image.tag": "9.9.9",
    "image.pullSecrets": [{"name": "registry"}],
    "global.serviceAccountName": None,
    "externalSecrets.apiVersion": "external-secrets.io/v1beta1",
    "externalSecrets.store.kind": "SecretStore",
    "externalSecrets.refreshInterval": "2h",
    "externalSecrets.secrets": {"other": {"key": {"key": "there"}}},
    "bootstrap.mode": "hook",
    "bootstrap.namespaces": ["customer_360"],
    "bootstrap.managementUrl": "http://polaris:8181/api/management/v1",
    "bootstrap.volumes": [{"name": "authorities", "configMap": {"name": "authorities"}}],
    "bootstrap.volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    "outbox.persistence.size": "11Gi",
    "polarisPreparation.image.pullPolicy": "Always",
    "postgresql.image.pullPolicy": "Always",
    "marquez.image.pullPolicy": "Always",
    "networkPolicy.kubernetesApi.cidrs": ["10.0.0.1/32"],
    "networkPolicy.kubernetesApi.ports": [6444],
    "networkPolicy.dns.peers": [{"ipBlock": {"cidr": "169.254.20.10/32"}}],
    "networkPolicy.dns.ports": [5353],
    "networkPolicy.webserverFrom": [{"podSelector": {}}],
    "podDisruptionBudgets.webserver.maxUnavailable": 2,
    "podDisruptionBudgets.codeServers.maxUnavailable": 2,
    **{
        f"networkPolicy.external.{name}": [{"ports": [{"port": 1}]}]
        for name in ("storage", "catalog", "compute", "postgresql", "telemetry", "lineage", "collector")
    },
}
EVERYTHING: dict[str, Any] = {
    "marquez": {"enabled": True},
    "otel-collector": {"enabled": True},
    "polaris": {"enabled": True},
    "polarisPreparation": {"enabled": True},
    **mounted("values.yaml"),
    "secrets": {"storeAdministration": "a", "catalogAdministration": "b"},
    "externalSecrets": {
        "enabled": True,
        "store": {"name": "vault"},
        "secrets": {"floe-runs": {"A": {"key": "a"}}},
    },
}


AGREEING = {"outbox.persistence.existingClaim", "secrets.runs", "secrets.storage", "secrets.warehouse"}
"""Values that have to agree with others: changed alone, they are refused by name."""


GENERATED = {**EVERYTHING, "externalSecrets": {"enabled": False}}


def other(path: str, value: Any) -> Any:
    if path in OTHERS:
        return OTHERS[path]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if re.fullmatch(r"\d+(m|Mi|Gi)?", str(value)):
        return re.sub(r"\d+", lambda found: str(int(found[0]) + 1), str(value))
    return f"{value}x"


def changed(base: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return changes with one value of theirs, or of values.yaml, replaced by another one."""
    changes = copy.deepcopy(base)
    inner = changes
    for part in path[:-1]:
        inner = inner.setdefault(part, {})
    inner[path[-1]] = other(".".join(path), inner.get(path[-1], value))
    return changes


def without_secrets(text: str) -> str:
    """Drop what generated Secrets hold: it is another one each time."""
    return re.sub(r"(?m)^  [\w-]+: [\w+/]{40,}=*$", "", text)


def test_every_value_of_ours_changes_something() -> None:
    ours = {key: value for key, value in value_file("values.yaml").items() if key not in SUBCHARTS}
    generated = {**GENERATED, "secrets": {**EVERYTHING["secrets"], "generate": True}}
    bases = {True: EVERYTHING, False: generated}
    texts = {kind: without_secrets(template(changes=base).stdout) for kind, base in bases.items()}
    assert all(texts.values())

    def is_without_effect(leaf: tuple[tuple[str, ...], Any]) -> str | None:
        path, value = leaf
        kind = path != ("secrets", "generate")
        changes = changed(bases[kind], path, value)
        done = template(changes=changes, manifest=None if path == ("manifest",) else MANIFEST)
        if ".".join(path) in AGREEING:
            assert done.returncode != 0 and ".".join(path) in done.stderr, path
            return None
        assert done.returncode == 0, (path, done.stderr)
        return ".".join(path) if without_secrets(done.stdout) == texts[kind] else None

    with ThreadPoolExecutor(2) as pool:
        assert [dotted for dotted in pool.map(is_without_effect, leaves(ours)) if dotted] == []


def test_the_chart_carries_no_secret_and_no_copy_of_a_manifest() -> None:
    for path in CHART.rglob("*.yaml"):
        assert "kind: Manifest\n" not in path.read_text(), path
    assert yaml.safe_load((CHART / "values.yaml").read_text())["manifest"] == ""
