"""What the factory makes of a bundle, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.home import FloeHome
from tests.conftest import shipped

K8S = "dagster-k8s/config"


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    folder = tmp_path_factory.mktemp("definitions")
    product = shipped(folder, "customer_360")
    result = compile_product(product, home=FloeHome(folder / "home"))
    assert result.bundle is not None, result.findings
    return build_product_definitions(result.bundle, product_dir=product, home=FloeHome(folder / "home"))


def spec(definitions: dg.Definitions, name: str) -> Any:
    return definitions.resolve_asset_graph().get(dg.AssetKey(["customer_360", name]))


def test_keys_groups_owners_tags_and_kinds(definitions: dg.Definitions) -> None:
    mart = spec(definitions, "mart_customer_360")
    assert mart.group_name == "gold"
    assert list(mart.owners) == ["customer-analytics@example.com"]
    assert {"dashboard", "floe/domain"} <= mart.tags.keys()
    assert mart.kinds == {"dbt", "table", "iceberg"}
    assert {key.path[-1] for key in mart.parent_keys} == {"int_customer_orders", "int_customer_support"}
    assert mart.description


def test_code_references_lead_to_the_file_and_to_the_line_that_describes_it(
    definitions: dg.Definitions,
) -> None:
    sql, described = (
        spec(definitions, "mart_customer_360").metadata["dagster/code_references"].code_references
    )
    assert sql.file_path.endswith("models/marts/mart_customer_360.sql") and sql.line_number == 1
    lines = Path(described.file_path).read_text().splitlines()
    assert lines[described.line_number - 1].strip() == "- name: mart_customer_360"


def test_dbt_tests_are_checks_and_only_errors_block(definitions: dg.Definitions) -> None:
    checks = {
        key.name: definitions.resolve_asset_graph().get(key)
        for key in definitions.resolve_asset_graph().asset_check_keys
    }
    assert {check.blocking for check in checks.values()} == {True, False}
    assert "assert_value_has_orders" in checks


def test_schedule(definitions: dg.Definitions) -> None:
    schedule = definitions.resolve_schedule_def("customer_360_schedule")
    assert schedule.cron_schedule == "0 6 * * *"
    assert schedule.execution_timezone == "Europe/Berlin"
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING


def test_freshness_of_published_tables(definitions: dg.Definitions) -> None:
    policy = spec(definitions, "mart_customer_360").freshness_policy
    assert policy.fail_window.to_timedelta().total_seconds() == 26 * 3600
    assert policy.warn_window.to_timedelta().total_seconds() == 25 * 3600
    assert spec(definitions, "raw_crm_customers").freshness_policy is None


def test_the_preset_is_on_the_job_and_on_its_op(definitions: dg.Definitions) -> None:
    job = definitions.resolve_job_def("customer_360_run")
    wanted = {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {"cpu": "2", "memory": "4Gi"},
    }
    import json

    for tags in (job.tags, job.get_node_named("customer_360_dbt").tags):
        config = tags[K8S]
        config = json.loads(config) if isinstance(config, str) else config
        assert config["container_config"]["resources"] == wanted


def test_a_pool_serialises_writers_of_the_duckdb_file(definitions: dg.Definitions) -> None:
    op = definitions.resolve_job_def("customer_360_run").get_node_named("customer_360_dbt").definition
    assert op.pool == "customer_360_writer"


def test_the_dbt_resource_is_visible(definitions: dg.Definitions) -> None:
    from floe_dagster.definitions.resources import DbtResource

    assert isinstance(definitions.resources, dict)
    assert any(isinstance(resource, DbtResource) for resource in definitions.resources.values())
