"""The instance that the chart's demo renders, on a real PostgreSQL and a real object store: used, backed up, restored."""

from __future__ import annotations

import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from floe_dagster import load_product_definitions
from floe_dagster.definitions.state import state_key
from tests.conftest import ROOT
from tests.deploy.chart.rendering import RELEASE, rendered
from tests.deploy.chart.runs import dagster_yaml
from tests.services.conftest import Services
from tests.services.postgresql import Postgresql

KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: none
clusters: [{name: none, cluster: {server: "https://127.0.0.1:9"}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
users: [{name: none, user: {}}]
"""


@pytest.fixture(scope="module")
def database() -> Iterator[Postgresql]:
    made = Postgresql("dagster", "generated-by-nobody", "dagster")
    yield made
    made.stop()


@pytest.fixture
def instance_folder(
    services: Services, database: Postgresql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """DAGSTER_HOME as a pod has it: one file that cannot be written; addresses are those of this machine."""
    config: dict[str, Any] = dagster_yaml(rendered("values-demo.yaml"))
    for part in ("run_storage", "event_log_storage", "schedule_storage"):
        config[part]["config"]["postgres_db"] |= {"hostname": "127.0.0.1", "port": database.port}
    config["compute_logs"]["config"]["endpoint_url"] = services.state["minio"]
    config["defs_state_storage"]["config"]["storage_options"] = {
        "endpoint_url": services.state["minio"],
        "skip_instance_cache": True,
    }
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG)
    config["run_launcher"]["config"] |= {"load_incluster_config": False, "kubeconfig_file": str(kubeconfig)}
    home = tmp_path / "etc" / "dagster"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text(yaml.safe_dump(config))
    for name, value in services.dagster_keys().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", database.password)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("FLOE_HOME", str(tmp_path / "home"))
    home.chmod(stat.S_IRUSR | stat.S_IXUSR)
    return home


def compile_in(instance: dg.DagsterInstance, shop: Path) -> str:
    done = (
        load_product_definitions(shop).resolve_job_def("shop_compile").execute_in_process(instance=instance)
    )
    assert done.success
    return done.run_id


def location(shop: Path) -> set[str]:
    keys = load_product_definitions(shop).get_repository_def().asset_graph.get_all_asset_keys()
    return {key.path[-1] for key in keys}


def test_the_rendered_instance_is_used_and_writes_nothing_into_its_folder(
    instance_folder: Path, database: Postgresql, shop: Path, services: Services
) -> None:
    with dg.DagsterInstance.get() as instance:
        assert type(instance.run_launcher).__name__ == "K8sRunLauncher"
        assert type(instance.compute_log_manager).__name__ == "S3ComputeLogManager"
        run = compile_in(instance, shop)
        version = instance.defs_state_storage.get_latest_version(state_key("shop"))  # type: ignore[union-attr]
        assert instance.get_run_by_id(run) is not None
        assert {"orders", "daily"} <= location(shop)
    assert database.sql(f"select status from runs where run_id = '{run}'") == "SUCCESS"
    stored = services.store().list_objects("floe-warehouse", prefix="dagster/defs-state/", recursive=True)
    assert version and any(entry.object_name.endswith(version) for entry in stored)
    assert sorted(path.name for path in instance_folder.iterdir()) == ["dagster.yaml"]


def test_the_documented_backup_brings_runs_and_states_back(
    instance_folder: Path, database: Postgresql, shop: Path, tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (dump,) = re.findall(r"exec floe-platform-postgresql-0 -- sh -c '(.*?pg_dump.*?)' >", text)
    (restore,) = re.findall(
        r"exec -i floe-platform-postgresql-0 -- sh -c \\\n\s*'(.*?pg_restore.*?)' <", text
    )
    pod = {
        "POSTGRES_USER": database.user,
        "POSTGRES_PASSWORD": database.password,
        "POSTGRES_DB": database.database,
    }
    with dg.DagsterInstance.get() as instance:
        run = compile_in(instance, shop)
        cursor = instance.defs_state_storage.get_latest_version(state_key("shop"))  # type: ignore[union-attr]
    with (tmp_path / "dagster.dump").open("wb") as file:
        assert subprocess_run(dump, {**database.environment, **pod}, stdout=file) == 0

    database.sql("DROP DATABASE dagster WITH (FORCE)", "postgres")
    database.sql("CREATE DATABASE dagster", "postgres")
    with dg.DagsterInstance.get() as instance:
        assert instance.get_run_by_id(run) is None
        # Without Dagster's database the state is found by the digest of the sources.
        shutil.rmtree(tmp_path / "home")
        assert {"orders", "daily"} <= location(shop)

    with (tmp_path / "dagster.dump").open("rb") as file:
        assert subprocess_run(restore, {**database.environment, **pod}, stdin=file) == 0
    with dg.DagsterInstance.get() as instance:
        found = instance.get_run_by_id(run)
        assert found is not None and found.is_success
        assert instance.defs_state_storage.get_latest_version(state_key("shop")) == cursor  # type: ignore[union-attr]


def subprocess_run(command: str, environment: dict[str, str], **streams: Any) -> int:
    import subprocess

    done = subprocess.run(["sh", "-c", command], env=environment, stderr=subprocess.PIPE, **streams)
    assert done.returncode == 0, done.stderr.decode()
    return done.returncode


def test_the_database_of_the_lineage_backend_is_made_with_its_own_role(
    database: Postgresql, tmp_path: Path
) -> None:
    script = tmp_path / "marquez.sh"
    data = rendered("values-demo.yaml").named("ConfigMap", f"{RELEASE}-postgresql-databases")["data"]
    script.write_text(data["marquez.sh"])
    login = {"MARQUEZ_DB": "marquez", "MARQUEZ_USER": "marquez", "MARQUEZ_PASSWORD": 'it\'s "quoted" $HOME'}
    pod = {"POSTGRES_USER": database.user, "POSTGRES_DB": database.database, **login}
    database.shell(["sh", str(script)], pod)
    own = {"PGUSER": "marquez", "PGPASSWORD": login["MARQUEZ_PASSWORD"]}
    assert (
        database.sql("create table t (id int); select current_user", "marquez", **own).splitlines()[-1]
        == "marquez"
    )
    done = database.sql("select rolsuper from pg_roles where rolname = 'marquez'")
    assert done == "f"
