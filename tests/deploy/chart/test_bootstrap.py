"""Bucket and catalog before everything else, on every install and upgrade; manifests and secrets as they are given."""

from __future__ import annotations

import argparse
import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from floe_dagster.cli.main import main
from floe_dagster.platform.bootstrap import STATE_KEYS
from floe_dagster.platform.object_store import STATE_PREFIX, state_policy
from tests.conftest import ROOT
from tests.deploy.chart.releases import upgraded
from tests.deploy.chart.rendering import (
    CHART,
    MANIFEST,
    RELEASE,
    VALUE_FILES,
    Document,
    Rendered,
    render,
    rendered,
    value_file,
)
from tests.deploy.chart.runs import dagster_yaml, run_pod
from tests.deploy.chart.test_preparation import POLARIS as PREPARED

HOOK, WEIGHT, DELETION = "helm.sh/hook", "helm.sh/hook-weight", "helm.sh/hook-delete-policy"

PERSISTENCE = {"type": "relational-jdbc", "relationalJdbc": {"secret": {"name": "floe-polaris-database"}}}
PREPARED_BESIDE = {**PREPARED, "polaris": {"enabled": True, "persistence": PERSISTENCE}}


def annotations(document: Document) -> dict[str, str]:
    found: dict[str, str] = document["metadata"].get("annotations") or {}
    return found


def job(chart: Rendered) -> Document:
    (found,) = [document for document in chart.of("Job") if "bootstrap" in document["metadata"]["name"]]
    return found


def steps(chart: Rendered) -> dict[str, list[str]]:
    spec = job(chart)["spec"]["template"]["spec"]
    return {c["name"]: c["args"] for c in [*spec["initContainers"], *spec["containers"]]}


def test_with_services_elsewhere_it_runs_before_anything_of_the_release() -> None:
    chart = rendered("values.yaml")
    hooks = [d for d in chart.documents if HOOK in annotations(d) and d["kind"] != "Pod"]
    by_weight = sorted(hooks, key=lambda d: int(annotations(d)[WEIGHT]))
    assert [d["kind"] for d in by_weight][-1] == "Job"
    assert {d["kind"] for d in by_weight} == {"ConfigMap", "ServiceAccount", "NetworkPolicy", "Job"}
    assert {annotations(d)[HOOK] for d in hooks} == {"pre-install,pre-upgrade,pre-rollback"}
    # An upgrade replaces what the last one left; what a run said stays until then.
    assert {annotations(d)[DELETION] for d in hooks} == {"before-hook-creation"}
    names = {d["metadata"]["name"] for d in hooks}
    spec = job(chart)["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] in names
    assert {v["configMap"]["name"] for v in spec["volumes"] if "configMap" in v} <= names


@pytest.mark.parametrize("values", ["values-test.yaml", "values-demo.yaml"])
def test_with_its_own_services_it_runs_beside_them_and_who_needs_the_bucket_waits(values: str) -> None:
    chart = rendered(values)
    assert HOOK not in annotations(job(chart))
    waiting = {
        name: [c for c in pod["spec"].get("initContainers") or [] if c["name"] == "wait-for-bucket"]
        for name, pod in chart.pods()
    }
    waits = {name: found[0] for name, found in waiting.items() if found}
    products = {
        f"Deployment/{RELEASE}-dagster-user-deployments-{p}"
        for p in ("customer-360", "iot-telemetry", "financial-risk")
    }
    dagster = {f"Deployment/{RELEASE}-dagster-webserver", f"Deployment/{RELEASE}-dagster-daemon"}
    assert set(waits) == {*products, *dagster, f"Deployment/{RELEASE}-polaris"}
    for container in waits.values():
        assert container["args"] == ["floe-dagster", "platform", "wait", "--only", "state", "--wait", "600"]


def test_runs_wait_for_what_their_location_waits_for() -> None:
    def waits(values: str) -> list[str]:
        return [container["name"] for container in run_pod(values)["spec"]["initContainers"]]

    assert waits("values.yaml") == ["wait-for-database"]
    assert waits("values-demo.yaml") == waits("values-test.yaml") == ["wait-for-database", "wait-for-bucket"]


def test_the_wait_for_the_database_ends_with_what_did_not_answer(tmp_path: Path) -> None:
    """The real command, with a `pg_isready` that never answers and a `sleep` that takes no time."""
    for name, text in {"pg_isready": 'echo "$@" >> "$CALLS"; exit 2', "sleep": ":"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    pod = rendered("values.yaml").pod(f"Deployment/{RELEASE}-dagster-user-deployments-customer-360")
    (container,) = pod["spec"]["initContainers"]
    calls = tmp_path / "calls"
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "CALLS": str(calls)}
    done = subprocess.run(container["command"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"PostgreSQL at {RELEASE}-postgresql:5432 did not answer within 300 s\n"
    assert calls.read_text().splitlines() == [f"-q -h {RELEASE}-postgresql -p 5432 -U dagster"] * 150
    (tmp_path / "pg_isready").write_text("#!/bin/sh\nexit 0\n")
    assert subprocess.run(container["command"], env=environment).returncode == 0


def test_an_upgrade_and_a_rollback_run_it_again() -> None:
    """A job is never changed: a hook is made anew, any other job has the revision in its name."""
    hook = job(upgraded("values.yaml", 8))
    assert hook["metadata"]["name"] == f"{RELEASE}-bootstrap"
    assert annotations(hook)[HOOK].split(",") == ["pre-install", "pre-upgrade", "pre-rollback"]
    assert annotations(hook)[DELETION] == "before-hook-creation"
    for revision in (2, 8):
        chart = upgraded("values-demo.yaml", revision, PREPARED_BESIDE)
        names = {document["metadata"]["name"] for document in chart.of("Job")}
        assert names == {
            f"{RELEASE}-bootstrap-{revision}",
            f"{RELEASE}-polaris-preparation-{revision}",
        }


@pytest.mark.parametrize(("mode", "is_hook"), [("hook", True), ("release", False)])
def test_the_mode_can_be_named(mode: str, is_hook: bool) -> None:
    for values in ("values.yaml", "values-demo.yaml"):
        assert (HOOK in annotations(job(render(values, changes={"bootstrap": {"mode": mode}})))) is is_hook


def test_it_ends_after_a_bounded_number_of_tries_and_seconds() -> None:
    changes = {"bootstrap": {"retries": 2, "deadlineSeconds": 600, "waitSeconds": 45}}
    chart = render(changes=changes)
    assert (job(chart)["spec"]["backoffLimit"], job(chart)["spec"]["activeDeadlineSeconds"]) == (2, 600)
    assert job(chart)["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert steps(chart)["bootstrap"][-2:] == ["--wait", "45"]


@pytest.mark.parametrize("values", VALUE_FILES)
def test_it_gives_up_before_helm_does(values: str) -> None:
    """Every `--timeout` that is documented, against the deadline of every job that Helm waits for."""
    texts = [ROOT / "docs" / name for name in ("operations.md", "kubernetes.md")]
    texts += [CHART / name for name in VALUE_FILES]
    minutes = [int(found) for text in texts for found in re.findall(r"--timeout (\d+)m", text.read_text())]
    assert len(minutes) >= 5
    jobs = render(values, changes=PREPARED_BESIDE).of("Job")
    assert len(jobs) == 2
    for found in jobs:
        deadline = found["spec"]["activeDeadlineSeconds"]
        assert deadline < 60 * min(minutes), found["metadata"]["name"]
    settings = value_file("values.yaml")["bootstrap"]
    # Store and catalog, each at its longest, and once again after the pod was lost.
    assert 2 * 2 * settings["waitSeconds"] < settings["deadlineSeconds"]
    assert value_file(values).get("bootstrap", settings) == settings


@pytest.mark.parametrize("values", ["values.yaml", "values-demo.yaml"])
def test_its_commands_are_the_command_line_s(values: str, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {
        "bootstrap": {
            "namespaces": ["customer_360", "iot_telemetry"],
            "managementUrl": "http://p/api/management/v1",
        }
    }
    chart = render(values, changes=changes)
    commands = [*steps(chart).values()]
    commands += [
        c["args"] for _, pod in chart.pods() for c in pod["spec"].get("initContainers") or [] if c.get("args")
    ]
    assert len(commands) >= 2
    for command in commands:
        assert command[0] == "floe-dagster"
        # With a help at its end a command does nothing but read its arguments.
        with pytest.raises(SystemExit) as ended:
            main([*command[1:], "--help"])
        assert ended.value.code == 0
        assert command[2] in capsys.readouterr().out
        with pytest.raises((SystemExit, argparse.ArgumentError)):
            main([*command[1:], "--no-such-option"])
        capsys.readouterr()


@pytest.mark.parametrize("values", ["values.yaml", "values-test.yaml", "values-demo.yaml"])
def test_the_manifest_arrives_byte_for_byte(values: str) -> None:
    chart = rendered(values)
    maps = [d for d in chart.of("ConfigMap") if d["metadata"]["name"].endswith("manifests")]
    assert len(maps) == (2 if values == "values.yaml" else 1)
    for found in maps:
        assert found["data"] == {"manifest.yaml": MANIFEST.read_text()}


def test_any_text_arrives_byte_for_byte(tmp_path: Path) -> None:
    text = (
        "# : {{ not a template }}\nkind: Manifest  \n\n\ttext: 'é ü 漢'\n".replace("\t", "")
        + 'a: |\n  x\n\n  y: "z"\n\n\n'
    )
    main_file, parent = tmp_path / "manifest.yaml", tmp_path / "parent.yaml"
    main_file.write_text(text)
    parent.write_text("kind: Manifest\nmetadata: {name: parent}\n")
    extra = ["--set-file", f"parentManifests.enterprise\\.yaml={parent}"]
    data = render(manifest=main_file, extra=extra).named("ConfigMap", f"{RELEASE}-manifests")["data"]
    assert data == {"manifest.yaml": text, "enterprise.yaml": parent.read_text()}


def test_generated_secrets_fit_each_other_and_the_manifest() -> None:
    documents = rendered("values-demo.yaml").of("Secret")
    secrets = {
        d["metadata"]["name"]: {key: base64.b64decode(value).decode() for key, value in d["data"].items()}
        for d in documents
    }
    storage = yaml.safe_load(MANIFEST.read_text())["plugins"]["storage"]["config"]
    assert secrets["floe-warehouse"] == {
        "AWS_ACCESS_KEY_ID": storage["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": secrets["floe-runs"]["MINIO_SECRET_ACCESS_KEY"],
    }
    # Another user: webserver and code servers hold its keys.
    assert secrets["floe-storage"]["AWS_ACCESS_KEY_ID"] == "floe-state" != storage["access_key_id"]
    assert set(secrets["floe-runs"]) == {"MINIO_SECRET_ACCESS_KEY", "POLARIS_CLIENT_SECRET"}
    assert set(secrets["floe-store-admin"]) == {"rootUser", "rootPassword"}
    assert set(secrets["floe-catalog-admin"]) == {"POLARIS_ROOT_CLIENT_ID", "POLARIS_ROOT_CLIENT_SECRET"}
    assert set(secrets["floe-postgresql"]) == {"postgresql-password", "marquez-db-password"}
    random = [
        v for values in secrets.values() for k, v in values.items() if "ID" not in k and k != "rootUser"
    ]
    assert all(len(value) == 32 for value in random)
    assert len(set(random)) == len(random) - 1
    again = render("values-demo.yaml").named("Secret", "floe-runs")["data"]
    assert again != rendered("values-demo.yaml").named("Secret", "floe-runs")["data"]
    assert {annotations(d)["helm.sh/resource-policy"] for d in documents} == {"keep"}


@pytest.mark.parametrize("values", ["values-demo.yaml", "values-test.yaml"])
def test_the_bootstrap_makes_the_user_whose_keys_webserver_and_code_servers_have(values: str) -> None:
    spec = job(rendered(values))["spec"]["template"]["spec"]
    (container,) = spec["initContainers"]
    given = {
        entry["name"]: entry["valueFrom"]["secretKeyRef"]
        for entry in container["env"]
        if entry["name"] in STATE_KEYS
    }
    assert given == {
        STATE_KEYS[0]: {"name": "floe-storage", "key": "AWS_ACCESS_KEY_ID"},
        STATE_KEYS[1]: {"name": "floe-storage", "key": "AWS_SECRET_ACCESS_KEY"},
    }


@pytest.mark.parametrize("values", ["values.yaml", "values-demo.yaml", "values-test.yaml"])
def test_what_dagster_keeps_in_the_bucket_lies_where_its_user_may_write(values: str) -> None:
    config = dagster_yaml(rendered(values))
    logs, state = config["compute_logs"]["config"], config["defs_state_storage"]["config"]["base_path"]
    assert f"{logs['prefix']}/".startswith(STATE_PREFIX)
    assert f"{state}/".startswith(f"s3://{logs['bucket']}/{STATE_PREFIX}")


def test_the_documented_policy_is_the_one_that_the_bootstrap_gives() -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    (policy,) = re.findall(r"```json\n(.*?)```", text, re.S)
    assert json.loads(policy) == state_policy("floe-warehouse")


def test_external_secrets_come_before_the_bootstrap_and_outlive_their_hook() -> None:
    wanted: dict[str, Any] = {
        "floe-runs": {"POLARIS_CLIENT_SECRET": {"key": "floe/runs", "property": "polaris"}},
        "floe-postgresql": {"postgresql-password": {"key": "floe/postgresql"}},
    }
    changes = {"externalSecrets": {"enabled": True, "store": {"name": "vault"}, "secrets": wanted}}
    chart = render(changes=changes)
    found = {d["metadata"]["name"]: d for d in chart.of("ExternalSecret")}
    assert set(found) == set(wanted)
    for name, document in found.items():
        assert int(annotations(document)[WEIGHT]) < int(annotations(job(chart))[WEIGHT])
        assert document["spec"]["target"] == {
            "name": name,
            "creationPolicy": "Orphan",
            "deletionPolicy": "Retain",
        }
        assert {e["secretKey"]: e["remoteRef"] for e in document["spec"]["data"]} == wanted[name]
    assert chart.of("Secret") == []
