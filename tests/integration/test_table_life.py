"""The life of tables, through Dagster: increments, write modes, governance, maintenance, secrets of Kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from dagster_k8s.job import DagsterK8sJobConfig, construct_dagster_k8s_job, get_user_defined_k8s_config

from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from tests.conftest import SPEC

pytestmark = pytest.mark.slow


class Product:
    """The shop, compiled and run as often as it takes."""

    def __init__(self, folder: Path, home: FloeHome, instance: dg.DagsterInstance) -> None:
        self.folder, self.home, self.instance = folder, home, instance

    def model(self, name: str, sql: str) -> None:
        (self.folder / "models" / f"{name}.sql").write_text(sql + "\n")

    def spec(self, text: str) -> None:
        (self.folder / "floe.yaml").write_text(SPEC + text)

    def job(self, name: str = "shop_run") -> Any:
        result = compile_product(self.folder, home=self.home)
        assert result.bundle is not None, result.findings
        definitions = build_product_definitions(result.bundle, product_dir=self.folder, home=self.home)
        return definitions.resolve_job_def(name)

    def run(self, name: str = "shop_run", config: dict[str, Any] | None = None, fails: bool = False) -> Any:
        ops = {"ops": {"shop_maintain": {"config": config}}} if config is not None else {}
        outcome = self.job(name).execute_in_process(
            instance=self.instance, raise_on_error=not fails, run_config=ops
        )
        assert outcome.success is not fails
        return outcome

    def metadata(self, outcome: Any, table: str) -> dict[str, Any]:
        for event in outcome.asset_materializations_for_node("shop_dbt"):
            if event.asset_key.path[-1] == table:
                return {
                    name: entry.value for name, entry in event.metadata.items() if hasattr(entry, "value")
                }
        raise AssertionError(table)

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        loaded = open_catalog(None, None, home=self.home).load_table(f"shop.{table}")
        return sorted(tuple(row.values()) for row in loaded.scan().to_arrow().to_pylist())

    def files(self, table: str) -> set[str]:
        loaded = open_catalog(None, None, home=self.home).load_table(f"shop.{table}")
        return {task.file.file_path for task in loaded.scan().plan_files()}

    def in_duckdb(self, table: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.home.duckdb_dir / "shop.duckdb"), read_only=True) as con:
            return sorted(con.execute(f"select * from {table}").fetchall())


@pytest.fixture
def product(shop: Path, home: FloeHome, instance: dg.DagsterInstance) -> Product:
    return Product(shop, home, instance)


GROWS = """\
{{ config(materialized='incremental') }}
{% if is_incremental() %}
select (select max(id) from {{ this }}) + 1 + range as id, 'more' as v from range(2)
{% else %}
select range as id, 'first' as v from range(1000)
{% endif %}"""


def test_an_increment_publishes_only_the_new_rows(product: Product) -> None:
    product.model("history", GROWS)
    product.run()
    first = product.files("history")
    outcome = product.run()
    second = product.files("history")
    assert first < second and len(second) == len(first) + 1
    metadata = product.metadata(outcome, "history")
    assert metadata["iceberg/write_mode"] == "increment"
    assert (metadata["iceberg/rows_inserted"], metadata["iceberg/rows_deleted"]) == (2, 0)
    assert metadata["dagster/row_count"] == 1002
    assert product.rows("history") == product.in_duckdb("history")


def test_an_increment_that_changes_rows_rewrites_only_their_files(product: Product) -> None:
    product.model(
        "history",
        """{{ config(materialized='incremental', unique_key='id') }}
{% if is_incremental() %}select 1500::bigint as id, 'changed' as v union all select 5000::bigint, 'new'
{% else %}select range as id, 'first' as v from range(1000){% endif %}""",
    )
    product.run()
    [untouched] = product.files("history")
    product.run()  # 1500 and 5000 are new, in a file of their own
    product.model(
        "history",
        """{{ config(materialized='incremental', unique_key='id') }}
select 1500::bigint as id, 'changed again' as v""",
    )
    outcome = product.run()
    metadata = product.metadata(outcome, "history")
    assert (metadata["iceberg/rows_inserted"], metadata["iceberg/rows_deleted"]) == (1, 1)
    assert untouched in product.files("history")
    assert product.rows("history") == product.in_duckdb("history")
    assert (1500, "changed again") in product.rows("history") and len(product.rows("history")) == 1002


def test_an_increment_of_duplicates_counts_each(product: Product) -> None:
    product.model(
        "history",
        "{{ config(materialized='incremental') }}\nselect 1 as id, null::varchar as v from range(3)",
    )
    product.run()
    product.run()
    assert product.rows("history") == product.in_duckdb("history") == [(1, None)] * 6


def test_an_increment_with_a_new_column_replaces_all(product: Product) -> None:
    sql = "{{{{ config(materialized='incremental', on_schema_change='append_new_columns') }}}}\nselect {} from range(3)"
    product.model("history", sql.format("range as id"))
    product.run()
    product.model("history", sql.format("range + 10 as id, 'x' as extra"))
    outcome = product.run()
    assert product.metadata(outcome, "history")["iceberg/write_mode"] == "overwrite"
    assert len(product.rows("history")) == 6 and (10, "x") in product.rows("history")


def test_a_compaction_needs_no_restore(product: Product) -> None:
    product.model("history", GROWS)
    for _step in range(6):
        product.run()
    outcome = product.run("shop_maintenance", {})
    [observed] = [
        event.event_specific_data.asset_observation
        for event in outcome.all_events
        if event.event_type_value == "ASSET_OBSERVATION" and "history" in str(event.asset_key)
    ]
    assert observed.metadata["maintenance/files_compacted"].value == 6
    assert observed.metadata["maintenance/files_after"].value == 1
    outcome = product.run()
    assert product.metadata(outcome, "history")["iceberg/write_mode"] == "increment"
    assert len(product.rows("history")) == 1000 + 6 * 2
    assert product.rows("history") == product.in_duckdb("history")


def test_write_modes_and_layout_of_the_spec(product: Product) -> None:
    product.spec(
        """transforms:
  - {name: orders, table: {write_mode: upsert, key: [id], partition_by: ["bucket(2, id)"], sort_by: [id desc]}}
  - {name: daily, table: {write_mode: append, properties: {owner: shop}}}
"""
    )
    product.model("orders", "select 1 as id, 'paid' as status")
    product.run()
    product.model("orders", "select 2 as id, 'new' as status")
    product.run()
    assert product.rows("orders") == [(1, "paid"), (2, "new")]
    assert product.rows("daily") == [(1,), (1,)]
    table = open_catalog(None, None, home=product.home).load_table("shop.orders")
    assert [field.name for field in table.spec().fields] == ["id_bucket"]
    daily = open_catalog(None, None, home=product.home).load_table("shop.daily")
    assert daily.properties["owner"] == "shop"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("{write_mode: upsert}", "upsert needs key"),
        ('{partition_by: ["week(at)"]}', "'week' is no partition transform"),
        ('{partition_by: ["bucket(id)"]}', "must look like bucket(16, id)"),
        ("{sort_by: [id downwards]}", "is no sort field"),
    ],
)
def test_a_layout_that_cannot_be_is_found_at_compile_time(product: Product, table: str, said: str) -> None:
    product.spec(f"transforms:\n  - {{name: orders, table: {table}}}\n  - {{name: daily}}\n")
    result = compile_product(product.folder, home=product.home)
    assert result.bundle is None
    [finding] = [finding for finding in result.findings if finding.severity == "error"]
    assert said in finding.to_text() and finding.line and "transforms" in (finding.field or "")


def test_governance_decides_which_schema_changes_are_taken(product: Product) -> None:
    product.spec("governance: {schema_evolution: additive}\n")
    product.run()
    product.model("orders", "select 1 as id")
    outcome = product.run(fails=True)
    assert "dropped status" in str(outcome.failure_data_for_node("shop_dbt"))
    assert product.rows("orders") == [(1, "paid")]
    product.model("orders", "select 1 as id, 'paid' as status, 2 as extra")
    product.run()
    assert product.rows("orders") == [(1, "paid", 2)]


def test_maintenance_previews_expires_and_reports(product: Product) -> None:
    product.spec(
        """transforms:
  - {name: orders, table: {expire_by: seen}}
  - {name: daily}
governance: {default_ttl_hours: 24, data_retention_days: 1, snapshot_keep_last: 1}
"""
    )
    product.model(
        "orders", "select 1 as id, now()::timestamp as seen union all select 2, timestamp '2020-01-01'"
    )
    product.run()
    preview = product.run("shop_maintenance", {"dry_run": True})
    assert len(product.rows("orders")) == 2
    done = product.run("shop_maintenance", {})
    for outcome in (preview, done):
        deleted = {
            "/".join(event.asset_key.path): event.event_specific_data.asset_observation.metadata[
                "maintenance/rows_deleted"
            ].value
            for event in outcome.all_events
            if event.event_type_value == "ASSET_OBSERVATION"
        }
        assert deleted == {"shop/orders": 1, "shop/daily": 0}
    assert [row[0] for row in product.rows("orders")] == [1]
    schedule = next(
        s
        for s in build_product_definitions(
            compile_product(product.folder, home=product.home).bundle,  # type: ignore[arg-type]
            product_dir=product.folder,
            home=product.home,
        ).schedules
        or ()
        if s.name == "shop_maintenance_schedule"
    )
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING


def test_a_renamed_model_leaves_a_table_that_is_reported_and_dropped_on_request(product: Product) -> None:
    product.run()
    (product.folder / "models" / "daily.sql").rename(product.folder / "models" / "per_day.sql")
    product.run()
    outcome = product.run("shop_maintenance", {})
    [output] = [event for event in outcome.all_events if event.event_type_value == "STEP_OUTPUT"]
    retired = output.event_specific_data.metadata["retired_tables"].value
    assert [entry["table"] for entry in retired] == ["daily"]
    assert product.rows("daily") == [(1,)]
    product.run("shop_maintenance", {"drop_retired": ["orders"]}, fails=True)
    product.run("shop_maintenance", {"drop_retired": ["daily"], "dry_run": True})
    assert product.rows("daily") == [(1,)]
    product.run("shop_maintenance", {"drop_retired": ["daily"]})
    assert not open_catalog(None, None, home=product.home).table_exists("shop.daily")
    assert product.rows("per_day") == [(1,)]


def test_maintenance_of_an_unknown_table_is_refused(product: Product) -> None:
    product.run()
    outcome = product.run("shop_maintenance", {"tables": ["nothing"]}, fails=True)
    assert "no model publishes nothing" in str(outcome.failure_data_for_node("shop_maintain"))


def test_a_kubernetes_secret_reaches_the_pod_by_reference(product: Product, tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text(
        """\
apiVersion: floe.dev/v1
kind: Manifest
metadata: {name: test-platform, version: 1.0.0, owner: platform@example.com}
plugins:
  catalog:
    type: polaris
    config:
      uri: http://polaris/api/catalog
      warehouse: floe
      oauth2: {client_id: floe-etl, client_secret: {secret: polaris-credentials, key: client-secret}}
  storage: {type: s3, config: {bucket: b, secret_access_key: {secret: s3, key: k, env: S3_SECRET}, access_key_id: a}}
"""
    )
    job = product.job()
    tags = job.tags
    config = get_user_defined_k8s_config(tags)
    pod = construct_dagster_k8s_job(
        DagsterK8sJobConfig(job_image="image", dagster_home="/tmp/dagster"), ["dagster"], "job", config
    ).to_dict()
    env = {
        entry["name"]: entry["value_from"]["secret_key_ref"]
        for entry in pod["spec"]["template"]["spec"]["containers"][0]["env"]
        if entry.get("value_from")
    }
    assert env["FLOE_SECRET_POLARIS_CREDENTIALS_CLIENT_SECRET"]["name"] == "polaris-credentials"
    assert env["FLOE_SECRET_POLARIS_CREDENTIALS_CLIENT_SECRET"]["key"] == "client-secret"
    assert env["S3_SECRET"]["key"] == "k"
    [node] = job.nodes
    assert get_user_defined_k8s_config(node.definition.tags).container_config["env"]
    outcome = job.execute_in_process(instance=product.instance, raise_on_error=False)
    # Who runs it elsewhere is told what is missing, and nobody tries again.
    said = str(outcome.failure_data_for_node("shop_dbt"))
    assert "FLOE_SECRET_POLARIS_CREDENTIALS_CLIENT_SECRET, which is not set" in said
    assert not [event for event in outcome.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("{secret: name-only}", "takes both"),
        ("{key: k}", "takes both"),
        ("{}", "must name where the secret comes from"),
        ("{secret: Bad_Name, key: k}", "Bad_Name"),
        ("plain-text", "reference"),
    ],
)
def test_a_reference_that_names_nothing_is_found(
    product: Product, tmp_path: Path, reference: str, said: str
) -> None:
    (tmp_path / "manifest.yaml").write_text(
        "apiVersion: floe.dev/v1\nkind: Manifest\n"
        "metadata: {name: test-platform, version: 1.0.0, owner: platform@example.com}\n"
        "plugins:\n  catalog:\n    type: rest\n    config:\n      uri: http://x\n      warehouse: w\n"
        f"      token: {reference}\n"
    )
    result = compile_product(product.folder, home=product.home)
    text = "\n".join(finding.to_text() for finding in result.findings)
    assert said in text and "manifest.yaml:10" in text
