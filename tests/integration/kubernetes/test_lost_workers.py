"""Runs in pods: each has one of its own, and one whose pod is lost fails clearly and is started again, safely.

`dagster dev` with the real `K8sRunLauncher`, run monitoring and run retries, against an API server whose pods are processes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import tests.dagster_dev
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.schemas.artifacts import PluginRef
from tests.conftest import ROOT
from tests.dagster_dev import DagsterDev
from tests.integration.kubernetes.cluster import Cluster, Pod
from tests.integration.observing.developing import ended, launch, loaded, tags
from tests.locations import DEFINITIONS, bake

WORKSPACE = """\
load_from:
  - python_module: {module_name: shop.definitions, working_directory: ., location_name: shop}
"""
SPEC = """\
apiVersion: floe.dev/v1
kind: FloeSpec
metadata: {name: shop, version: 1.0.0, owner: shop@example.com, labels: {domain: sales}}
platform: {manifest: ../manifest.yaml}
resources: medium
"""
SECRET = "marker-of-a-secret-4be0643f1d"
pytestmark = pytest.mark.slow

TABLES = ("orders", "gated")
MESSAGES = """query ($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
    ... on RunFailureEvent { message error { message } } ... on EngineEvent { message } } } } }"""


@dataclass
class Shop:
    """A product in a cluster whose last model is computed while it is published, and waits for somebody to write a FIFO."""

    dev: DagsterDev
    cluster: Cluster
    folder: Path
    shared: Path

    @property
    def gate(self) -> Path:
        return gate(self.shared)

    def shut(self) -> None:
        """The last model waits from now on."""
        self.gate.parent.mkdir(exist_ok=True)
        self.gate.unlink(missing_ok=True)
        os.mkfifo(self.gate)

    def open(self) -> None:
        """It waits no longer."""
        # Whoever waits at the FIFO still reads its end.
        with contextlib.suppress(OSError):
            os.close(os.open(self.gate, os.O_WRONLY | os.O_NONBLOCK))
        self.gate.parent.mkdir(exist_ok=True)
        self.gate.unlink(missing_ok=True)
        self.gate.write_text("open\n")

    def snapshots(self, table: str) -> int:
        catalog = open_catalog(
            PluginRef(type="sql", config=catalog_settings(self.shared)), None, home=FloeHome(self.shared)
        )
        if not catalog.table_exists(f"shop.{table}"):
            return 0
        return len(catalog.load_table(f"shop.{table}").metadata.snapshots)

    def until(self, what: str, look: Callable[[], Any], seconds: float = 120) -> Any:
        try:
            return self.dev.until(what, look, seconds)
        except AssertionError as error:
            logs = "\n".join(f"--- {pod.name} ---\n{pod.log.read_text()}" for pod in self.cluster.pods)
            raise AssertionError(f"{error}\n{logs}") from None

    def run_until_it_publishes(self) -> tuple[str, Pod]:
        """Start a run and return it with its pod, once one table of two stands published."""
        before = self.snapshots("orders")
        run_id = launch(self.dev, "shop", "shop_run")
        pod = self.until("the pod", lambda: self.cluster.pod_of(run_id))
        self.until("the first table", lambda: self.snapshots("orders") > before)
        # The commit stands; now its event is recorded, and the next table waits at the gate.
        time.sleep(2)
        assert pod.process.poll() is None
        return run_id, pod

    def messages(self, run_id: str) -> str:
        events = self.dev.graphql(MESSAGES, id=run_id)["logsForRun"]["events"]
        return "\n".join(event["message"] for event in events if event.get("message"))

    def retry_of(self, run_id: str) -> str:
        """Wait for the run that the daemon starts in place of another, and return its id."""

        def look() -> str | None:
            return next(
                (
                    run["id"]
                    for run in self.dev.runs("shop_run")
                    if {"key": "dagster/parent_run_id", "value": run_id} in run["tags"]
                ),
                None,
            )

        found: str = self.until(f"a retry of {run_id}", look)
        return found


def catalog_settings(shared: Path) -> dict[str, str]:
    return {"uri": f"sqlite:///{shared / 'catalog.db'}", "warehouse": str(shared / "warehouse")}


def gate(shared: Path) -> Path:
    """Return the FIFO's path: a publication reads the warehouse, and no other folder."""
    return shared / "warehouse" / "gate"


def make_product(folder: Path, shared: Path) -> Path:
    manifest = {
        "apiVersion": "floe.dev/v1",
        "kind": "Manifest",
        "metadata": {"name": "test-platform", "version": "1.0.0", "owner": "platform@example.com"},
        "plugins": {"catalog": {"type": "sql", "config": catalog_settings(shared)}},
        "observability": {
            "tracing": {"exporter": "none"},
            "lineage": {"transport": "file", "api_key": {"secret": "lineage", "key": "token"}},
        },
        "resource_presets": {
            "medium": {
                "requests": {"cpu": "500m", "memory": "1Gi"},
                "limits": {"cpu": "2", "memory": "4Gi"},
            }
        },
    }
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    (folder / "workspace.yaml").write_text(WORKSPACE)
    product = folder / "shop"
    (product / "models").mkdir(parents=True)
    (product / "floe.yaml").write_text(SPEC)
    (product / "__init__.py").touch()
    (product / "definitions.py").write_text(DEFINITIONS)
    (product / "dbt_project.yml").write_text(
        "name: shop\nversion: 1.0.0\nprofile: shop\nmodels: {+materialized: table}\n"
    )
    (product / "models" / "orders.sql").write_text("select 1 as id, 'paid' as status\n")
    # A view that is published is computed by the publication.
    (product / "models" / "gated.sql").write_text(
        "{{ config(materialized='view', meta={'floe': {'publish': true}}) }}\n"
        "select count(*) as n, max(case content when 'bad' then error('a bad gate')::bigint else length(content) end) as "
        f"read from {{{{ ref('orders') }}}} cross join read_text('{gate(shared)}')\n"
    )
    return product


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder, home, shared = (tmp_path_factory.mktemp(name) for name in ("project", "home", "shared"))
    product = make_product(folder, shared)
    bake(product, FloeHome(home / "floe"))
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), {"lineage": {"token": SECRET}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        settings = yaml.safe_load((ROOT / "deploy" / "local" / "dagster.yaml").read_text())
        settings["run_monitoring"] |= {
            "poll_interval_seconds": 2,
            "free_slots_after_run_end_seconds": 2,
            "max_resume_run_attempts": 0,
        }
        settings["run_retries"] = {"enabled": True}
        settings["run_launcher"] = {
            "module": "dagster_k8s",
            "class": "K8sRunLauncher",
            "config": {
                "load_incluster_config": False,
                "kubeconfig_file": str(cluster.kubeconfig()),
                "service_account_name": "runs",
                "instance_config_map": "instance",
                "dagster_home": str(home / "dagster"),
                "job_image": "floe-dagster-demo:test",
                "job_namespace": "floe",
                "volumes": [{"name": "home", "emptyDir": {"sizeLimit": "20Gi"}}],
                "volume_mounts": [{"name": "home", "mountPath": "/var/lib/floe", "subPath": "home"}],
                "env_vars": [f"PYTHONPATH={folder}{os.pathsep}{ROOT}"],
            },
        }
        local = home / "root" / "deploy" / "local"
        local.mkdir(parents=True)
        (local / "dagster.yaml").write_text(yaml.safe_dump(settings))
        patch.setattr(tests.dagster_dev, "ROOT", home / "root")
        dev = DagsterDev(folder, home)
        try:
            loaded(dev, "shop")
            yield Shop(dev, cluster, folder, shared)
        finally:
            dev.stop()
            cluster.stop()


@dataclass
class Lost:
    """A run whose pod was killed, and the retry in its place, which has ended as well."""

    run_id: str
    pod: Pod
    retry: str
    published: dict[str, int]
    """How many snapshots each table got in both runs together."""


@pytest.fixture(scope="module")
def oom_killed(shop: Shop) -> Lost:
    before = {name: shop.snapshots(name) for name in TABLES}
    shop.shut()
    run_id, pod = shop.run_until_it_publishes()
    pod.kill()
    shop.open()
    assert ended(shop.dev, run_id) == "FAILURE"
    retry = shop.retry_of(run_id)
    assert ended(shop.dev, retry) == "SUCCESS", shop.dev.error_of(retry)
    return Lost(run_id, pod, retry, {name: shop.snapshots(name) - before[name] for name in TABLES})


def test_a_run_whose_pod_runs_out_of_memory_fails_and_says_so(shop: Shop, oom_killed: Lost) -> None:
    said = shop.messages(oom_killed.run_id)
    assert "Detected run worker status" in said and "Marking run" in said
    assert "OOMKilled" in said and "137" in said


def test_its_retry_publishes_what_is_missing_and_nothing_twice(shop: Shop, oom_killed: Lost) -> None:
    assert oom_killed.published == {"orders": 1, "gated": 1}
    pod = shop.cluster.pod_of(oom_killed.retry)
    assert pod is not None and pod.name != oom_killed.pod.name
    # The DuckDB file of the lost pod went with it; the new one has its own.
    assert (pod.volume / "duckdb" / "shop.duckdb").exists()
    assert pod.volume != oom_killed.pod.volume


def test_each_run_is_one_pod_with_the_presets_resources(shop: Shop, oom_killed: Lost) -> None:
    run_id, pod = oom_killed.run_id, oom_killed.pod
    assert [other.name for other in shop.cluster.pods].count(pod.name) == 1
    assert pod.name == f"dagster-run-{run_id}"
    assert pod.container["resources"] == {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {"cpu": "2", "memory": "4Gi"},
    }
    assert pod.labels["floe.dev/product"] == "shop" and pod.labels["floe.dev/task"] == "run"
    assert pod.labels["dagster/run-id"] == run_id
    assert pod.job["spec"]["backoffLimit"] == 0
    [secret] = [entry for entry in pod.container["env"] if entry.get("valueFrom")]
    assert secret["valueFrom"]["secretKeyRef"] == {"name": "lineage", "key": "token"}
    assert SECRET not in str(pod.job)


def test_an_evicted_run_says_why_and_is_started_again(shop: Shop) -> None:
    before = shop.snapshots("gated")
    shop.shut()
    run_id, pod = shop.run_until_it_publishes()
    pod.evict("The node was low on resource: memory.")
    shop.open()
    assert ended(shop.dev, run_id) == "FAILURE"
    assert "The node was low on resource: memory." in shop.messages(run_id)
    retry = shop.retry_of(run_id)
    assert ended(shop.dev, retry) == "SUCCESS", shop.dev.error_of(retry)
    assert shop.snapshots("gated") == before + 1
    assert tags(shop.dev, retry)["dagster/retry_number"] == "1"


def test_a_run_on_a_drained_node_ends_in_time_and_is_started_again(shop: Shop) -> None:
    shop.shut()
    before = shop.snapshots("gated")
    run_id, pod = shop.run_until_it_publishes()
    pod.terminate()
    # What DuckDB reads cannot be interrupted; the step notices the signal when it is done.
    time.sleep(3)
    shop.open()
    assert ended(shop.dev, run_id) == "FAILURE"
    assert "Execution was interrupted unexpectedly" in shop.messages(run_id)
    assert pod.process.wait(60) != -9
    retry = shop.retry_of(run_id)
    assert ended(shop.dev, retry) == "SUCCESS", shop.dev.error_of(retry)
    assert shop.snapshots("gated") == before + 1


def test_a_run_that_cannot_end_in_time_is_killed_and_started_again(shop: Shop) -> None:
    shop.shut()
    before = shop.snapshots("gated")
    run_id, pod = shop.run_until_it_publishes()
    pod.terminate()
    assert ended(shop.dev, run_id) == "FAILURE"
    assert pod.process.wait(60) == -9
    assert "Terminated with exit code 137" in shop.messages(run_id)
    shop.open()
    retry = shop.retry_of(run_id)
    assert ended(shop.dev, retry) == "SUCCESS", shop.dev.error_of(retry)
    assert shop.snapshots("gated") == before + 1


def test_a_run_that_fails_by_itself_is_not_started_again(shop: Shop) -> None:
    shop.gate.write_text("bad")
    run_id = launch(shop.dev, "shop", "shop_run")
    assert ended(shop.dev, run_id) == "FAILURE"
    assert "a bad gate" in shop.dev.error_of(run_id)
    shop.until("the decision", lambda: tags(shop.dev, run_id).get("dagster/will_retry"))
    assert tags(shop.dev, run_id)["dagster/will_retry"] == "false"
    time.sleep(5)
    assert not [
        run
        for run in shop.dev.runs("shop_run")
        if {"key": "dagster/parent_run_id", "value": run_id} in run["tags"]
    ]
