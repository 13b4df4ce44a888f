"""PostgreSQL behind Polaris: prepared by a job of the chart, before Polaris needs it, as often as one likes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.deploy.chart import pods
from tests.deploy.chart.rendering import RELEASE, Document, Rendered, render, rendered, template
from tests.deploy.chart.test_manifests import NEWEST, OLDEST, refused
from tests.deploy.chart.test_network import egress, opens, selects

NAME = f"{RELEASE}-polaris-preparation"
HOOK, WEIGHT = "helm.sh/hook", "helm.sh/hook-weight"
ONE_VALUE: dict[str, Any] = {"polarisPreparation": {"enabled": True}}
POLARIS: dict[str, Any] = {
    "polaris": {"enabled": True},
    "secrets": {"catalogAdministration": "floe-catalog-admin"},
    **ONE_VALUE,
}
ELSEWHERE: dict[str, Any] = {
    **POLARIS,
    "postgresql": {"enabled": False},
    "dagster": {"postgresql": {"postgresqlHost": f"{RELEASE}-postgresql"}},
    "networkPolicy": {
        "external": {
            "postgresql": [
                {"to": [{"ipBlock": {"cidr": "10.2.0.0/16"}}], "ports": [{"protocol": "TCP", "port": 5432}]}
            ]
        }
    },
}


def job(chart: Rendered) -> Document:
    (found,) = [d for d in chart.of("Job") if d["metadata"]["name"].startswith(NAME)]
    return found


def annotations(document: Document) -> dict[str, str]:
    found: dict[str, str] = document["metadata"].get("annotations") or {}
    return found


def test_nothing_is_prepared_unless_it_is_asked_for() -> None:
    for values in ("values.yaml", "values-demo.yaml", "values-test.yaml"):
        assert NAME not in str(rendered(values).documents)


@pytest.mark.parametrize(
    "rule",
    [pods.insecure, pods.writable_roots, pods.without_bounds, pods.moving_images, pods.plain_secrets],
    ids=lambda rule: rule.__name__,
)
def test_its_pod_is_like_any_other_of_ours(rule: Any) -> None:
    pod = job(render(changes=POLARIS))["spec"]["template"]
    assert list(rule(pod)) == []
    assert pod["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("changes", [POLARIS, ELSEWHERE], ids=["inside", "outside"])
def test_kubernetes_takes_it(changes: dict[str, Any], version: str) -> None:
    assert refused(list(render(changes=changes).documents), version) == []


def test_it_has_the_server_s_version_and_reads_the_secrets_that_the_values_name_already() -> None:
    changes = {**POLARIS, "polaris": {"enabled": True, "image": {"tag": "9.9.9"}}}
    pod = job(render(changes=changes))["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert container["image"] == "docker.io/apache/polaris-admin-tool:9.9.9"
    assert pods.needed_secrets(pod) == {"floe-polaris-database", "floe-catalog-admin"}


def test_with_the_release_s_database_it_runs_beside_it_and_ends_by_itself() -> None:
    chart = render(changes=POLARIS)
    found = job(chart)
    assert HOOK not in annotations(found)
    assert found["metadata"]["name"] == f"{NAME}-1"
    assert found["spec"]["backoffLimit"] > 0 and found["spec"]["activeDeadlineSeconds"] > 0
    # Polaris does not wait for it, so `helm --wait` cannot wait for ever.
    assert NAME not in str(chart.pod(f"Deployment/{RELEASE}-polaris"))


def test_with_a_database_elsewhere_it_is_over_before_polaris_starts() -> None:
    chart = render(changes=ELSEWHERE)
    hooks = [d for d in chart.documents if NAME in d["metadata"]["name"] and HOOK in annotations(d)]
    assert {d["kind"] for d in hooks} == {"ServiceAccount", "NetworkPolicy", "Job"}
    assert {annotations(d)[HOOK] for d in hooks} == {"pre-install,pre-upgrade,pre-rollback"}
    assert job(chart)["metadata"]["name"] == NAME
    first = [int(annotations(d)[WEIGHT]) for d in hooks if d["kind"] != "Job"]
    assert max(first) < int(annotations(job(chart))[WEIGHT]) < 0


def test_its_secrets_are_there_when_it_starts() -> None:
    """What the release itself makes is not there before the release is."""
    changes = {**ELSEWHERE, "secrets": {"catalogAdministration": "floe-catalog-admin", "generate": True}}
    assert HOOK not in annotations(job(render(changes=changes)))


def test_it_reaches_the_database_and_nothing_else_and_nobody_reaches_it() -> None:
    chart = render(changes=POLARIS)
    policies = chart.of("NetworkPolicy")
    own = job(chart)["spec"]["template"]["metadata"]["labels"]
    others = {name: pod["metadata"]["labels"] for name, pod in chart.pods() if NAME not in name}
    reached = {
        (name, port)
        for name, theirs in others.items()
        for port in (3030, 5432, 8080, 8181, 9000)
        if opens(policies, "out", own, theirs, port) and opens(policies, "in", theirs, own, port)
    }
    assert reached == {(f"StatefulSet/{RELEASE}-postgresql", 5432)}
    (policy,) = [p for p in policies if p["metadata"]["name"] == NAME]
    assert selects(policy["spec"]["podSelector"], own) and not policy["spec"]["ingress"]
    outside = egress(render(changes=ELSEWHERE), "polaris-preparation")
    assert ELSEWHERE["networkPolicy"]["external"]["postgresql"][0] in outside


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (ONE_VALUE, "without polaris.enabled"),
        ({**ONE_VALUE, "polaris": {"enabled": True}}, "secrets.catalogAdministration"),
        (
            {**POLARIS, "polaris": {"enabled": True, "persistence": {"type": "in-memory"}}},
            'polaris.persistence.type is "in-memory"',
        ),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_set(changes: dict[str, Any], said: str) -> None:
    done = template(changes=changes)
    assert done.returncode != 0 and said in done.stderr


TOOL = """#!/bin/sh
echo "$@" > "$SEEN/arguments"
for last; do :; done
cat "$last" > "$SEEN/file"
printf '%s\\n' "$SAYS"
exit "$CODE"
"""


def prepare(folder: Path, says: str, code: int, secret: str = "s3cret") -> subprocess.CompletedProcess[str]:
    """Run the job's own script with a stand-in for the tool's `java`."""
    (folder / "java").write_text(TOOL)
    (folder / "java").chmod(0o755)
    (container,) = job(render(changes=POLARIS))["spec"]["template"]["spec"]["containers"]
    shell, flag, script = container["command"]
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SEEN": str(folder),
        "SAYS": says,
        "CODE": str(code),
        "REALM": "POLARIS",
        "POLARIS_ROOT_CLIENT_ID": "root",
        "POLARIS_ROOT_CLIENT_SECRET": secret,
    }
    command = [shell, flag, script.replace("/tmp/", f"{folder}/")]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_an_empty_database_gets_the_root_principal(tmp_path: Path) -> None:
    secret = """it's "a" #secret: {with} \\ ,all $of it"""
    done = prepare(tmp_path, "Realm 'POLARIS' successfully bootstrapped.", 0, secret)
    assert (done.returncode, done.stdout) == (0, "Realm 'POLARIS' successfully bootstrapped.\n")
    credentials = yaml.safe_load((tmp_path / "file").read_text())
    assert credentials == {"POLARIS": {"client-id": "root", "client-secret": secret}}
    arguments = (tmp_path / "arguments").read_text()
    assert "-jar /deployments/polaris-admin-tool.jar bootstrap --credentials-file" in arguments
    assert secret not in arguments
    assert not (tmp_path / "root.yaml").exists()


def test_a_realm_that_is_there_is_no_failure(tmp_path: Path) -> None:
    said = "IllegalArgumentException: It appears this metastore manager has already been bootstrapped. To continue"
    done = prepare(tmp_path, said, 3)
    assert (done.returncode, done.stdout) == (0, "realm POLARIS is there\n")


def test_any_other_failure_is_one_and_says_why(tmp_path: Path) -> None:
    done = prepare(tmp_path, "Connection to db:5432 refused", 3)
    assert (done.returncode, done.stdout) == (3, "Connection to db:5432 refused\n")


def test_the_manual_puts_no_secret_into_a_pod_s_specification() -> None:
    for name in ("operations.md", "kubernetes.md"):
        text = (ROOT / "docs" / name).read_text()
        assert "kubectl -n $NS run" not in text and "--env=QUARKUS" not in text
    assert "polarisPreparation" in (ROOT / "docs" / "operations.md").read_text()
