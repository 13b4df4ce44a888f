"""What Kubernetes would say to the rendered documents."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from tests.deploy.chart.pods import needed_secrets, unknown_mounts
from tests.deploy.chart.rendering import RELEASE, VALUE_FILES, Document, render, rendered
from tests.deploy.chart.runs import run_job

OLDEST, NEWEST = "1.29", "1.36"
"""Of Kubernetes: what Chart.yaml promises, and the newest whose schemas are there."""

EXTERNAL_SECRET = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"enum": ["external-secrets.io/v1", "external-secrets.io/v1beta1"]},
        "kind": {"const": "ExternalSecret"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "required": ["secretStoreRef", "target", "data"],
            "additionalProperties": False,
            "properties": {
                "refreshInterval": {"type": "string", "pattern": "^[0-9]+(s|m|h)$"},
                "secretStoreRef": {
                    "type": "object",
                    "required": ["name", "kind"],
                    "additionalProperties": False,
                    "properties": {"name": {"type": "string", "minLength": 1}, "kind": {"type": "string"}},
                },
                "target": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "name": {"type": "string"},
                        "creationPolicy": {"enum": ["Owner", "Orphan", "Merge", "None"]},
                        "deletionPolicy": {"enum": ["Delete", "Merge", "Retain"]},
                    },
                },
                "data": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["secretKey", "remoteRef"],
                        "additionalProperties": False,
                        "properties": {
                            "secretKey": {"type": "string"},
                            "remoteRef": {"type": "object", "required": ["key"]},
                        },
                    },
                },
            },
        },
    },
}
"""The part of the operator's definition that the chart uses; Kubernetes itself has no schema for it."""


def refused(documents: list[Document], version: str) -> list[str]:
    found = []
    for document in documents:
        name = f"{document['kind']}/{document['metadata']['name']}"
        if document["kind"] == "ExternalSecret":
            jsonschema.validate(document, EXTERNAL_SECRET)
            continue
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except Exception as error:
            found.append(f"{name}: {str(error).splitlines()[0]}")
    return found


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("values", VALUE_FILES)
def test_kubernetes_takes_every_document(values: str, version: str) -> None:
    documents = list(rendered(values).documents)
    assert len(documents) > 25
    assert refused(documents, version) == []


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_what_is_optional(version: str) -> None:
    changes: dict[str, Any] = {
        "externalSecrets": {
            "enabled": True,
            "store": {"name": "vault"},
            "secrets": {"floe-runs": {"A": {"key": "a"}}},
        },
        "parentManifests": {"enterprise.yaml": "kind: Manifest\n"},
        "image": {"pullSecrets": [{"name": "registry"}]},
        "bootstrap": {"namespaces": ["shop"], "managementUrl": "http://polaris/api/management/v1"},
        "networkPolicy": {
            "webserverFrom": [{"podSelector": {}}],
            "external": {
                "storage": [
                    {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"protocol": "TCP", "port": 443}]}
                ]
            },
        },
        "polaris": {"enabled": True},
    }
    assert refused(list(render(changes=changes).documents), version) == []


@pytest.mark.parametrize("values", VALUE_FILES)
def test_kubernetes_takes_the_job_of_a_run(values: str) -> None:
    job = run_job(rendered(values), "customer-360")
    assert refused([job], NEWEST) == []


def test_the_check_finds_a_misspelt_field() -> None:
    job = json.loads(json.dumps(rendered("values.yaml").named("Job", f"{RELEASE}-bootstrap")))
    job["spec"]["template"]["spec"]["restartpolicy"] = "Never"
    assert refused([job], NEWEST)


@pytest.mark.parametrize("values", VALUE_FILES)
def test_names_are_unique_and_short_enough(values: str) -> None:
    names = [(d["kind"], d["metadata"]["name"]) for d in rendered(values).documents]
    assert len(names) == len(set(names))
    # Those of the others may be longer.
    assert all(len(name) <= 63 for kind, name in names if kind in ("Service", "Job", "StatefulSet", "Pod"))


@pytest.mark.parametrize("values", VALUE_FILES)
def test_what_a_pod_mounts_or_reads_is_there_or_is_promised(values: str) -> None:
    chart = rendered(values)
    maps = {document["metadata"]["name"] for document in chart.of("ConfigMap")}
    accounts = {document["metadata"]["name"] for document in chart.of("ServiceAccount")} | {None}
    for name, pod in chart.pods():
        volumes = pod["spec"].get("volumes") or []
        assert {v["configMap"]["name"] for v in volumes if "configMap" in v} <= maps, name
        assert pod["spec"].get("serviceAccountName") in accounts, name
        claims = chart.named(*name.split("/"))["spec"].get("volumeClaimTemplates") or []
        assert list(unknown_mounts(pod, *(claim["metadata"]["name"] for claim in claims))) == [], name
    secrets = {document["metadata"]["name"] for document in chart.of("Secret")}
    needed = set().union(*(needed_secrets(pod) for _, pod in chart.pods()))
    if values == "values.yaml":
        assert secrets == set() and needed == {"floe-runs", "floe-storage", "floe-postgresql"}
    else:
        assert needed <= secrets


def test_a_mount_of_an_init_container_counts() -> None:
    pod = json.loads(json.dumps(rendered("values-demo.yaml").pod(f"Deployment/{RELEASE}-polaris")))
    assert list(unknown_mounts(pod)) == []
    (waits,) = pod["spec"]["initContainers"]
    waits["volumeMounts"][0]["name"] = "manifest"
    assert list(unknown_mounts(pod)) == ["wait-for-bucket: manifest"]


@pytest.mark.parametrize("values", VALUE_FILES)
def test_every_service_finds_its_pods_and_their_port(values: str) -> None:
    chart = rendered(values)
    for service in chart.of("Service"):
        selector = service["spec"]["selector"]
        chosen = [pod for _, pod in chart.pods() if selector.items() <= pod["metadata"]["labels"].items()]
        assert chosen, service["metadata"]["name"]


@pytest.mark.parametrize("values", VALUE_FILES)
def test_budgets_let_a_node_be_drained(values: str) -> None:
    chart = rendered(values)
    for budget in chart.of("PodDisruptionBudget"):
        labels = budget["spec"]["selector"]["matchLabels"]
        chosen = [name for name, pod in chart.pods() if labels.items() <= pod["metadata"]["labels"].items()]
        assert chosen and budget["spec"]["maxUnavailable"] >= 1, budget["metadata"]["name"]


def test_the_manifest_s_addresses_are_services_of_the_release() -> None:
    from urllib.parse import urlsplit

    import yaml

    from tests.deploy.chart.rendering import MANIFEST

    plugins = yaml.safe_load(MANIFEST.read_text())
    found = [
        plugins["plugins"]["catalog"]["config"]["uri"],
        plugins["plugins"]["storage"]["config"]["endpoint"],
        plugins["plugins"]["lineage_backend"]["config"]["url"],
        plugins["observability"]["tracing"]["endpoint"],
    ]
    services = {
        (service["metadata"]["name"], int(port["port"]))
        for service in rendered("values-demo.yaml").of("Service")
        for port in service["spec"]["ports"]
    }
    assert {(urlsplit(address).hostname, urlsplit(address).port) for address in found} <= services
