"""Who may talk to whom, computed from the rendered policies and the labels of the rendered pods."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.deploy.chart.rendering import (
    KUBERNETES,
    MANIFEST,
    RELEASE,
    Document,
    Rendered,
    chart_folder,
    render,
    rendered,
    run_helm,
    template,
    value_file,
)
from tests.deploy.chart.runs import run_pod
from tests.deploy.chart.test_manifests import NEWEST, refused

Labels = Mapping[str, str]
PORTS = (53, 443, 3000, 3030, 4317, 4318, 5000, 5432, 6443, 8080, 8181, 8182, 9000, 9001)
STRANGER = {"app": "somebody", "app.kubernetes.io/instance": RELEASE}


def parts(chart: Rendered, values: str) -> dict[str, Labels]:
    """Return the labels of one pod of each part of the flow."""
    short = {
        f"Deployment/{RELEASE}-dagster-webserver": "webserver",
        f"Deployment/{RELEASE}-dagster-daemon": "daemon",
        f"Deployment/{RELEASE}-dagster-user-deployments-customer-360": "location",
        f"Deployment/{RELEASE}-minio": "minio",
        f"Deployment/{RELEASE}-polaris": "polaris",
        f"Deployment/{RELEASE}-otel-collector": "collector",
        f"Deployment/{RELEASE}-marquez": "marquez",
        f"StatefulSet/{RELEASE}-postgresql": "postgresql",
        f"Pod/{RELEASE}-test": "test",
    }
    found = {short.get(name, name): pod["metadata"]["labels"] for name, pod in chart.pods()}
    made = {name: labels for name, labels in found.items() if "/" not in name}
    (made["bootstrap"],) = [labels for name, labels in found.items() if name.startswith("Job/")]
    made["run"] = run_pod(values)["metadata"]["labels"]
    made["stranger"] = STRANGER
    return made


def selects(selector: Mapping[str, Any], labels: Labels) -> bool:
    assert set(selector) <= {"matchLabels"}, "the test knows matchLabels alone"
    return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())


def opens(policies: list[Document], direction: str, of: Labels, other: Labels, port: int) -> bool:
    """Tell whether the policies that select a pod let it talk in one direction."""
    kind, peer = ("Ingress", "from") if direction == "in" else ("Egress", "to")
    chosen = [
        p["spec"]
        for p in policies
        if kind in p["spec"]["policyTypes"] and selects(p["spec"]["podSelector"], of)
    ]
    if not chosen:
        return True
    return any(
        port in [entry["port"] for entry in rule["ports"]]
        and any(
            "namespaceSelector" not in entry
            and "podSelector" in entry
            and selects(entry["podSelector"], other)
            for entry in rule[peer]
        )
        for spec in chosen
        for rule in spec.get(kind.lower()) or []
    )


def arrows(chart: Rendered, values: str) -> set[tuple[str, str, int]]:
    policies = chart.of("NetworkPolicy")
    pods = parts(chart, values)
    return {
        (one, other, port)
        for one, own in pods.items()
        for other, theirs in pods.items()
        for port in PORTS
        if opens(policies, "out", own, theirs, port) and opens(policies, "in", theirs, own, port)
    }


DAGSTER = {
    ("webserver", "postgresql", 5432),  # runs and events
    ("daemon", "postgresql", 5432),
    ("location", "postgresql", 5432),
    ("run", "postgresql", 5432),
    ("webserver", "location", 3030),  # what it serves
    ("daemon", "location", 3030),  # schedules and sensors
    ("run", "location", 3030),  # a compilation asks for the new state to be served
    ("test", "webserver", 8080),
}
STORAGE = {(who, "minio", 9000) for who in ("webserver", "daemon", "location", "run", "bootstrap", "polaris")}
CATALOG = {("run", "polaris", 8181), ("bootstrap", "polaris", 8181)}
OBSERVED = {
    *{(who, "collector", port) for who in ("location", "run") for port in (4317, 4318)},
    *{(who, "marquez", 5000) for who in ("location", "run")},
    ("marquez", "postgresql", 5432),
}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("values.yaml", DAGSTER),
        ("values-test.yaml", DAGSTER | STORAGE | CATALOG),
        ("values-demo.yaml", DAGSTER | STORAGE | CATALOG | OBSERVED),
    ],
)
def test_the_flow_s_arrows_are_open_and_no_others(values: str, expected: set[tuple[str, str, int]]) -> None:
    assert arrows(rendered(values), values) == expected


def test_a_catalog_that_keeps_its_state_in_postgresql_reaches_it() -> None:
    changes = {
        "polaris": {"enabled": True},
        "minio": {"enabled": True},
        "secrets": {"storeAdministration": "floe-store-admin"},
    }
    assert ("polaris", "postgresql", 5432) in arrows(render(changes=changes), "values.yaml")


def egress(chart: Rendered, part: str) -> list[Document]:
    found: list[Document] = chart.named("NetworkPolicy", f"{RELEASE}-{part}")["spec"].get("egress") or []
    return found


def test_names_are_resolved_by_everybody_and_nothing_else_leaves_by_default() -> None:
    default = rendered("values.yaml").named("NetworkPolicy", f"{RELEASE}-default")["spec"]
    assert default["podSelector"] == {} and set(default["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in default
    (names,) = default["egress"]
    assert {entry["port"] for entry in names["ports"]} == {53}
    assert names["to"][0]["podSelector"] == {"matchLabels": {"k8s-app": "kube-dns"}}


def dns_examples() -> dict[str, dict[str, Any]]:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    (found,) = re.findall(r"```yaml\n(# NodeLocal.*?)```", text, re.S)
    return dict(zip(("nodelocal", "openshift"), yaml.safe_load_all(found), strict=True))


@pytest.mark.parametrize(
    ("kind", "peer", "port"),
    [
        ("nodelocal", {"ipBlock": {"cidr": "169.254.20.10/32"}}, 53),
        (
            "openshift",
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}},
                "podSelector": {"matchLabels": {"dns.operator.openshift.io/daemonset-dns": "default"}},
            },
            5353,
        ),
    ],
)
@pytest.mark.parametrize("values", ["values.yaml", "values-demo.yaml"])
def test_names_are_resolved_where_the_cluster_s_dns_is(
    values: str, kind: str, peer: Document, port: int
) -> None:
    """As the manual has it; by everybody, and by the bootstrap, which starts before the policy of everybody."""
    chart = render(values, changes=dns_examples()[kind])
    for part in ("default", "bootstrap"):
        (names,) = [rule for rule in egress(chart, part) if peer in rule["to"]]
        assert {(entry["protocol"], entry["port"]) for entry in names["ports"]} == {
            ("UDP", port),
            ("TCP", port),
        }
    assert refused(chart.of("NetworkPolicy"), NEWEST) == []


def test_production_opens_no_address_that_nobody_named() -> None:
    assert value_file("values.yaml")["networkPolicy"]["kubernetesApi"]["cidrs"] == []
    assert "0.0.0.0/0" not in str(rendered("values.yaml").of("NetworkPolicy"))
    done = run_helm(
        *("template", RELEASE, str(chart_folder()), "--kube-version", KUBERNETES),
        *("--set-file", f"manifest={MANIFEST}"),
    )
    assert done.returncode != 0
    assert "networkPolicy.kubernetesApi.cidrs is empty" in done.stderr
    assert "kubectl get endpoints kubernetes" in done.stderr
    # Without policies, or without Dagster, nobody needs it.
    closed: dict[str, Any] = {"kubernetesApi": {"cidrs": []}}
    for changes in (
        {"networkPolicy": {**closed, "enabled": False}},
        {"networkPolicy": closed, "dagster": {"enabled": False}},
    ):
        assert template(changes=changes).returncode == 0


@pytest.mark.parametrize("values", ["values.yaml", "values-demo.yaml"])
def test_kubernetes_api_is_open_to_who_starts_and_stops_runs(values: str) -> None:
    chart = rendered(values)
    outside = {
        policy["metadata"]["name"].removeprefix(f"{RELEASE}-")
        for policy in chart.of("NetworkPolicy")
        for rule in policy["spec"].get("egress") or []
        if any("ipBlock" in peer for peer in rule.get("to", []))
    }
    assert outside == {"webserver", "daemon"}
    changes = {"networkPolicy": {"kubernetesApi": {"cidrs": ["10.96.0.1/32"], "ports": [6443]}}}
    narrow = [
        rule for rule in egress(render(values, changes=changes), "daemon") if "ipBlock" in rule["to"][0]
    ]
    assert narrow == [
        {"to": [{"ipBlock": {"cidr": "10.96.0.1/32"}}], "ports": [{"protocol": "TCP", "port": 6443}]}
    ]


def test_services_elsewhere_are_opened_to_who_uses_them() -> None:
    def rule(port: int) -> Document:
        return {
            "to": [{"ipBlock": {"cidr": f"10.0.{port % 250}.0/24"}}],
            "ports": [{"protocol": "TCP", "port": port}],
        }

    wanted = {
        "storage": 9443,
        "catalog": 8443,
        "compute": 8444,
        "postgresql": 5433,
        "telemetry": 4320,
        "lineage": 5443,
        "collector": 4330,
    }
    changes = {
        "networkPolicy": {"external": {name: [rule(port)] for name, port in wanted.items()}},
        "otel-collector": {"enabled": True},
        "marquez": {"enabled": True},
    }
    chart = render(changes=changes)
    seen = {
        name: {
            part
            for part in (
                "webserver",
                "daemon",
                "code-servers",
                "runs",
                "bootstrap",
                "collector",
                "marquez",
                "postgresql",
            )
            if rule(port) in egress(chart, part)
        }
        for name, port in wanted.items()
    }
    assert seen == {
        "storage": {"webserver", "daemon", "code-servers", "runs", "bootstrap"},
        "catalog": {"runs", "bootstrap"},
        "compute": {"runs", "bootstrap"},
        "postgresql": {"webserver", "daemon", "code-servers", "runs", "marquez"},
        "telemetry": {"code-servers", "runs"},
        "lineage": {"code-servers", "runs"},
        "collector": {"collector"},
    }


def test_the_pages_are_opened_to_whom_the_values_name() -> None:
    proxy = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}
    closed = rendered("values.yaml").named("NetworkPolicy", f"{RELEASE}-webserver")["spec"]["ingress"]
    chart = render(changes={"networkPolicy": {"webserverFrom": [proxy]}})
    opened = chart.named("NetworkPolicy", f"{RELEASE}-webserver")["spec"]["ingress"]
    assert [rule for rule in opened if rule not in closed] == [
        {"from": [proxy], "ports": [{"protocol": "TCP", "port": 8080}]}
    ]


def test_without_policies_there_are_none() -> None:
    assert render(changes={"networkPolicy": {"enabled": False}}).of("NetworkPolicy") == []
