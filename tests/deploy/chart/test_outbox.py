"""An outbox on a volume that outlives the pod: who mounts it, and what the chart says to who forgot."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.deploy.chart import pods
from tests.deploy.chart.rendering import (
    RELEASE,
    VALUE_FILES,
    Document,
    Rendered,
    render,
    rendered,
    template,
    value_file,
)
from tests.deploy.chart.runs import run_job
from tests.deploy.chart.test_manifests import NEWEST, OLDEST, refused
from tests.deploy.chart.test_network import arrows

PLACE = "/var/lib/floe/outbox"
PRODUCTS = ("customer-360", "iot-telemetry", "financial-risk")
DAEMON = f"Deployment/{RELEASE}-dagster-daemon"


def mounted(values: str, claim: str = f"{RELEASE}-outbox", **persistence: Any) -> dict[str, Any]:
    """Return changes as the manual has them: one volume more for the daemon and for each location."""
    volume = {"name": "outbox", "persistentVolumeClaim": {"claimName": claim}}
    mount = {"name": "outbox", "mountPath": PLACE}
    defaults, given = value_file("values.yaml")["dagster"], value_file(values)["dagster"]
    locations = copy.deepcopy(given["dagster-user-deployments"]["deployments"])
    for location in locations:
        location["volumes"] = [*location["volumes"], volume]
        location["volumeMounts"] = [*location["volumeMounts"], mount]
    daemon = {**defaults["dagsterDaemon"], **given["dagsterDaemon"]}
    return {
        "outbox": {"persistence": {"enabled": True, **persistence}},
        "dagster": {
            "dagsterDaemon": {
                "env": [{"name": "FLOE_HOME", "value": "/var/lib/floe"}],
                "volumes": [*daemon["volumes"], volume],
                "volumeMounts": [*daemon["volumeMounts"], mount],
            },
            "dagster-user-deployments": {"deployments": locations},
        },
    }


def claim_at_the_outbox(pod: Document) -> str | None:
    """Return the claim that the main container has where its outbox is."""
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    (container,) = pod["spec"]["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    for mount in container["volumeMounts"]:
        if mount["mountPath"] == f"{environment.get('FLOE_HOME')}/outbox":
            assert "subPath" not in mount and not mount.get("readOnly")
            found: str = volumes[mount["name"]]["persistentVolumeClaim"]["claimName"]
            return found
    return None


def own_claims(chart: Rendered) -> list[Document]:
    return [d for d in chart.of("PersistentVolumeClaim") if d["metadata"]["name"] != f"{RELEASE}-minio"]


@pytest.mark.parametrize("values", VALUE_FILES)
def test_nothing_outlives_a_pod_unless_it_is_asked_for(values: str) -> None:
    chart = rendered(values)
    assert own_claims(chart) == []
    for product in PRODUCTS:
        assert claim_at_the_outbox(run_job(chart, product)["spec"]["template"]) is None


@pytest.mark.parametrize("values", VALUE_FILES)
def test_runs_code_servers_and_daemon_share_it(values: str) -> None:
    chart = render(values, changes=mounted(values, storageClassName="shared", size="3Gi"))
    (claim,) = own_claims(chart)
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "shared",
        "resources": {"requests": {"storage": "3Gi"}},
    }
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    holders = {name: pod for name, pod in chart.pods() if "user-deployments" in name or name == DAEMON}
    holders |= {f"run of {p}": run_job(chart, p)["spec"]["template"] for p in PRODUCTS}
    assert len(holders) == 7
    for name, pod in holders.items():
        assert claim_at_the_outbox(pod) == claim["metadata"]["name"], name
        assert pod["spec"]["securityContext"]["fsGroup"] == 10001, name
        assert [*pods.insecure(pod), *pods.writable_roots(pod)] == [], name
    # A volume is no connection between pods.
    assert arrows(chart, values) == arrows(rendered(values), values)


def test_a_claim_of_somebody_else_s_is_used_and_none_is_made() -> None:
    chart = render(changes=mounted("values.yaml", "shared-outbox", existingClaim="shared-outbox"))
    assert own_claims(chart) == []
    assert claim_at_the_outbox(chart.pod(DAEMON)) == "shared-outbox"


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_it(version: str) -> None:
    chart = render(changes=mounted("values.yaml"))
    assert refused([*chart.documents, run_job(chart, "customer-360")], version) == []


def without_the_daemon(changes: dict[str, Any]) -> None:
    changes["dagster"].pop("dagsterDaemon")


def without_one_location(changes: dict[str, Any]) -> None:
    changes["dagster"]["dagster-user-deployments"]["deployments"][1]["volumeMounts"].pop()


def at_another_place(changes: dict[str, Any]) -> None:
    locations = changes["dagster"]["dagster-user-deployments"]["deployments"]
    locations[2]["volumeMounts"][-1] = {"name": "outbox", "mountPath": "/outbox"}


def of_another_claim(changes: dict[str, Any]) -> None:
    changes["outbox"]["persistence"]["existingClaim"] = "another"


@pytest.mark.parametrize(
    ("forget", "who", "claim"),
    [
        (without_the_daemon, "dagster.dagsterDaemon", f"{RELEASE}-outbox"),
        (without_one_location, "code location iot-telemetry", f"{RELEASE}-outbox"),
        (at_another_place, "code location financial-risk", f"{RELEASE}-outbox"),
        (of_another_claim, "code location customer-360", "another"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_who_does_not_mount_it_is_named_with_what_to_add(forget: Any, who: str, claim: str) -> None:
    changes = mounted("values.yaml")
    forget(changes)
    done = template(changes=changes)
    assert done.returncode != 0
    assert f"{who} does not mount the claim {claim}" in done.stderr
    assert f"claimName: {claim}" in done.stderr and "mountPath: /var/lib/floe/outbox" in done.stderr


def test_the_manual_s_lines_are_those_that_the_chart_wants() -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    (example,) = re.findall(r"```yaml\n(outbox:.*?)```", text, re.S)
    shown = yaml.safe_load(example)["dagster"]
    wanted = mounted("values.yaml")["dagster"]
    assert shown["dagsterDaemon"] == wanted["dagsterDaemon"]
    (location,) = shown["dagster-user-deployments"]["deployments"]
    assert location["volumes"] == wanted["dagsterDaemon"]["volumes"][-1:]
    assert location["volumeMounts"] == wanted["dagsterDaemon"]["volumeMounts"][-1:]
