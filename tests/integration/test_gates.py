"""What a run builds, tests and publishes: exactly what was asked, and no table without the results of its tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog

ONE = "Got 1 result, configured to fail if != 0"


def write(product: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = product / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class Product:
    """A product that is compiled once for several runs."""

    def __init__(self, folder: Path, home: FloeHome) -> None:
        self.home = home
        result = compile_product(folder, home=home)
        assert result.bundle is not None, result.findings
        self.index = result.bundle.index()
        definitions = build_product_definitions(result.bundle, product_dir=folder, home=home)
        self.job = definitions.resolve_job_def("shop_run")

    def run(self, *names: str, **options: Any) -> dict[str, str]:
        """Run all, or some assets alone; returns why tables were withheld, by name."""
        if names:
            options["asset_selection"] = [dg.AssetKey(["shop", name]) for name in names]
        self.outcome = self.job.execute_in_process(raise_on_error=False, **options)
        for event in self.outcome.all_events:
            if event.event_type == dg.DagsterEventType.STEP_FAILURE:
                data = event.step_failure_data.user_failure_data
                assert data is not None and "withheld" in data.metadata, event.step_failure_data.error
                return dict(data.metadata["withheld"].value)
        assert self.outcome.success
        return {}

    def rows(self, table: str) -> list[Any]:
        catalog = open_catalog(None, None, home=self.home)
        if not catalog.table_exists(f"shop.{table}"):
            return []
        found = catalog.load_table(f"shop.{table}").scan().to_arrow().to_pylist()
        return sorted(next(iter(row.values())) for row in found)


EVENTS = """\
{{ config(materialized='incremental') }}
select id from read_csv('DATA')
{% if is_incremental() %} where id > (select coalesce(max(id), 0) from {{ this }}) {% endif %}
"""
SNAPSHOT = """\
{% snapshot orders_history %}
{{ config(unique_key='id', strategy='check', check_cols=['id']) }}
select id from read_csv('DATA')
{% endsnapshot %}
"""


@pytest.mark.slow
def test_names_that_meet_are_built_apart(shop: Path, home: FloeHome, tmp_path: Path) -> None:
    """A model, the folders of others, a snapshot's file, a seed and tests all begin with the same names."""
    data = tmp_path / "data.csv"
    data.write_text("id\n1\n")
    for name in ("models/orders.sql", "models/daily.sql"):
        (shop / name).unlink()
    write(
        shop,
        {
            "models/orders.sql": "select id from read_csv('DATA')",
            "models/orders/events.sql": EVENTS,
            "models/orders/orders.yml": "models: [{name: events, columns: [{name: id, data_tests: [unique]}]}]",
            "models/orders/events/late.sql": EVENTS,
            "models/shop/orders_late.sql": "select id from read_csv('DATA')",
            "snapshots/orders.sql": SNAPSHOT,
            "seeds/orders/orders_codes.csv": "code\n7\n",
            "tests/orders.sql": "select 1 as id where false and 1 in (select id from {{ ref('events') }})",
        },
    )
    for path in [*shop.rglob("*.sql")]:
        path.write_text(path.read_text().replace("DATA", str(data)))
    product = Product(shop, home)
    tables = ("orders", "events", "late", "orders_late", "orders_history")
    assert product.run() == {}
    assert {name: product.rows(name) for name in tables} == {name: [1] for name in tables}
    for number, name in enumerate(("orders", "events"), 2):
        data.write_text(data.read_text() + f"{number}\n")
        assert product.run(name) == {}
        assert {asset.asset_key.path[-1] for asset in _materialized(product.outcome)} == {name}
    assert product.run() == {}
    assert {name: product.rows(name) for name in tables} == {name: [1, 2, 3] for name in tables}


def _materialized(outcome: Any) -> list[Any]:
    return list(outcome.asset_materializations_for_node("shop_dbt"))


SCHEMA = """\
sources:
  - name: raw
    schema: main
    tables: [{name: customers, columns: [{name: id, data_tests: [unique]}]}]
models:
  - name: orders
    columns:
      - name: customer
        data_tests:
          - relationships: {arguments: {to: ref('customers'), field: id}}
          - not_null: {name: switched, config: {enabled: "{{ var('tested', true) }}"}}
          - accepted_values:
              name: weakened
              arguments: {values: [1, 9]}
              config: {severity: "{{ 'error' if flags.WHICH == 'parse' else 'warn' }}"}
  - name: customers
  - name: kept
    columns: [{name: id, data_tests: [unique]}]
unit_tests:
  - name: doubled
    model: doubles
    given: [{input: ref('customers'), rows: [{id: 2}]}]
    expect: {rows: [{id: 4}]}
"""
GRAPH = {
    # Of a source and a model: it judges the readers of both.
    "tests/known.sql": "select o.customer from {{ ref('orders') }} as o anti join {{ source('raw', 'customers') }} as c "
    "on c.id = o.customer where o.customer <> 9",
    # Of two models: it names the one that it judges.
    "tests/apart.sql": "{{ config(meta={'floe': {'withholds': ['customers']}}) }} "
    "select 1 as wrong where (select count(*) from {{ ref('orders') }}) > (select count(*) from {{ ref('customers') }})",
    "models/schema.yml": SCHEMA,
    # The source is a table that stands in the DuckDB file, made before anything is built.
    "dbt_project.yml": "name: shop\nmodels: {+materialized: table}\non-run-start:\n"
    "  - create or replace table main.customers_raw as select unnest([1, 2, {{ var('again', 3) }}]) as id\n",
    "models/customers.sql": "select id from {{ source('raw', 'customers') }}",
    "models/kept.sql": "{{ config(materialized='ephemeral') }} select id from {{ ref('customers') }}",
    "models/orders.sql": "select {{ var('customer', 1) }} as customer",
    "models/doubles.sql": "select 2 * id as id from {{ ref('customers') }}",
    "models/reader.sql": "select id from {{ ref('kept') }}",
    "models/daily.sql": "select count(*) as n from {{ ref('orders') }}",
    "models/alone.sql": "select 1 as one",
}


@pytest.fixture
def tested(shop: Path, home: FloeHome) -> Product:
    write(shop, GRAPH)
    schema = shop / "models" / "schema.yml"
    schema.write_text(
        schema.read_text().replace(
            "{name: customers, columns", "{name: customers, identifier: customers_raw, columns"
        )
    )
    return Product(shop, home)


def varying(**values: Any) -> dict[str, Any]:
    return {"run_config": {"ops": {"shop_dbt": {"config": {"vars": values}}}}}


@pytest.mark.slow
def test_every_compiled_test_has_a_result_in_the_run_that_publishes_its_table(tested: Product) -> None:
    names = {check.name: set(check.withholds) for check in tested.index.checks}
    assert names["source_unique_raw_customers_id"] == {"model.shop.customers"}
    assert names["unique_kept_id"] == {"model.shop.reader"}
    assert names["known"] == {"model.shop.customers", "model.shop.orders"}
    assert names["apart"] == {"model.shop.customers"}
    relation = "relationships_orders_customer__id__ref_customers_"
    assert names[relation] == {"model.shop.orders"}

    # Switched off in the run, though it was compiled.
    withheld = tested.run(**varying(tested=False))
    assert withheld == {
        "orders": "test switched has no result: dbt did not run it, though it was compiled",
        "daily": "it reads orders, which was withheld",
    }
    assert tested.rows("alone") == [1] and tested.rows("orders") == []

    # Of a source, of a unit, of an ephemeral model: they withhold what reads it.
    withheld = tested.run(**varying(again=1))
    assert withheld["customers"] == f"test source_unique_raw_customers_id failed: {ONE}"
    assert withheld["doubles"] == withheld["reader"] == "it reads customers, which was withheld"
    assert withheld["orders"] == f"test {relation} has no result: it reads customers, which was withheld"
    evaluations = {e.check_name: e.passed for e in tested.outcome.get_asset_check_evaluations()}
    assert evaluations["source_unique_raw_customers_id"] is False

    assert tested.run() == {}
    assert len(tested.outcome.get_asset_check_evaluations()) == len(tested.index.checks) == 8

    # What a model is compared with stands, and what reads it.
    assert tested.run(**varying(customer=9)) == {
        "orders": f"test {relation} failed: {ONE}",
        "daily": "it reads orders, which was withheld",
    }
    # One asset alone is judged by tests that read more than itself, and by those that are shown with others.
    assert tested.run("customers") == {}
    evaluations = {e.check_name: e.asset_key.path[-1] for e in tested.outcome.get_asset_check_evaluations()}
    told = {"source_unique_raw_customers_id": "customers", "apart": "customers", "known": "orders"}
    assert evaluations.items() >= told.items()
    withheld = tested.run("orders", **varying(customer=2))
    assert withheld == {
        "orders": "test weakened failed: it was compiled as an error test and only warned in this run"
    }
    assert tested.rows("orders") == [1] and tested.rows("customers") == [1, 2, 3]
    assert tested.run("reader") == {}
    assert {e.check_name for e in tested.outcome.get_asset_check_evaluations()} == {"unique_kept_id"}


HOSTILE_FLAGS = """\
name: shop
models: {+materialized: table}
flags:
  fail_fast: true
  indirect_selection: empty
  warn_error_options: {error: all}
  write_json: false
  log_level: none
  populate_cache: false
"""


def test_settings_of_project_and_user_decide_nothing(
    shop: Path, home: FloeHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A default selector without tests, `flags:`, dbt's variables, and what lies in the user's home."""
    write(
        shop,
        {
            "dbt_project.yml": HOSTILE_FLAGS,
            "selectors.yml": "selectors: [{name: tables, default: true, definition: {method: resource_type, value: model}}]",
            "models/orders.sql": "select unnest([1, 1]) as id",
            "models/warned.sql": "select unnest([2, 2]) as id",
            "models/alone.sql": "select 1 as one",
            "models/schema.yml": "models:\n  - {name: orders, columns: [{name: id, data_tests: [unique]}]}\n"
            "  - {name: warned, columns: [{name: id, data_tests: [{unique: {config: {severity: warn}}}]}]}\n",
        },
    )
    user = tmp_path / "user"
    write(
        user,
        {".dbt/profiles.yml": "config: {warn_error: true}\nshop: {}\n", ".dbt/dbt_cloud.yml": "version: [\n"},
    )
    for name, value in {
        "HOME": str(user),
        "DBT_EXCLUDE_RESOURCE_TYPES": "test",
        "DBT_EMPTY": "true",
        "DBT_ENGINE_FAIL_FAST": "true",
        "DBT_PROFILES_DIR": str(user / ".dbt"),
        "DBT_STATE": str(user),
        "DBT_WARN_ERROR": "true",
    }.items():
        monkeypatch.setenv(name, value)
    product = Product(shop, home)
    # With what the compilation has parsed, and where dbt parses by itself.
    for options in ({}, varying(other=1)):
        assert product.run(**options) == {
            "orders": f"test unique_orders_id failed: {ONE}",
            "daily": "it reads orders, which was withheld",
        }
        found = {e.check_name: e.passed for e in product.outcome.get_asset_check_evaluations()}
        assert found == {"unique_orders_id": False, "unique_warned_id": False}
        assert product.rows("alone") == [1] and product.rows("warned") == [2, 2]


def test_a_table_that_the_engine_cannot_read_is_refused_alone(shop: Path, home: FloeHome) -> None:
    """The view was built and passed; what it reads was changed behind its back before it is published."""
    write(
        shop,
        {
            "models/shown.sql": "{{ config(materialized='view', meta={'floe': {'publish': true}}) }} "
            "select id from {{ ref('orders') }}",
            "models/after.sql": "{{ config(post_hook='create or replace table main.orders as select 1 as state') }} "
            "select count(*) as n from {{ ref('shown') }}",
            "models/alone.sql": "select 1 as one",
        },
    )
    product = Product(shop, home)
    withheld = product.run()
    assert withheld.keys() == {"shown", "after"} and withheld["shown"].startswith(
        "shown cannot be published: "
    )
    assert withheld["after"] == "it reads shown, which was not published"
    assert product.rows("alone") == product.rows("orders") == product.rows("daily") == [1]


def test_a_first_build_that_was_not_published_begins_anew(shop: Path, home: FloeHome, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("id\n1\n1\n")
    snapshot = SNAPSHOT.replace("orders_history", "history")
    write(
        shop,
        {
            "models/events.sql": EVENTS.replace("DATA", str(data)),
            "snapshots/history.sql": snapshot.replace("DATA", str(data)),
            "models/schema.yml": "models: [{name: events, columns: [{name: id, data_tests: [unique]}]}]",
            "snapshots/schema.yml": "snapshots: [{name: history, columns: [{name: id, data_tests: [unique]}]}]",
        },
    )
    product = Product(shop, home)
    assert product.run() == {
        "events": f"test unique_events_id failed: {ONE}",
        "history": f"test unique_history_id failed: {ONE}",
    }
    data.write_text("id\n1\n2\n")
    assert product.run() == {}
    assert product.rows("events") == product.rows("history") == [1, 2]


@pytest.mark.slow
def test_a_run_of_one_asset_reads_nothing_that_failed(shop: Path, home: FloeHome) -> None:
    write(
        shop,
        {
            "models/orders.sql": "select unnest([1, {{ var('again', 2) }}]) as id",
            "models/shown.sql": "{{ config(materialized='view') }} select id from {{ ref('orders') }}",
            "models/daily.sql": "select id from {{ ref('shown') }}",
            "models/schema.yml": "models: [{name: orders, columns: [{name: id, data_tests: [unique]}]}]",
        },
    )
    product = Product(shop, home)
    failed = {"orders": f"test unique_orders_id failed: {ONE}"}
    assert product.run(**varying(again=1)).items() >= failed.items()
    # What it reads was built and tested again first, and the cause is named before what comes of it.
    assert [*product.run("daily", **varying(again=1)).items()] == [
        *failed.items(),
        ("shown", "it reads orders, which was withheld"),
        ("daily", "it reads shown, which was withheld"),
    ]
    assert product.rows("daily") == []
    assert product.run("daily") == {}
    assert product.rows("daily") == [1, 2] and product.rows("orders") == []


@pytest.mark.slow
def test_what_is_built_since_it_is_missing_is_tested_with_all_that_its_tests_read(
    shop: Path, home: FloeHome
) -> None:
    """The test of the view compares it with a table that the run does not need otherwise."""
    write(
        shop,
        {
            "models/orders.sql": "{{ config(materialized='view') }} select {{ var('customer', 1) }} as customer",
            "models/customers.sql": "select 1 as id",
            "models/daily.sql": "select customer from {{ ref('orders') }}",
            "models/schema.yml": "models: [{name: orders, columns: [{name: customer, data_tests: [{relationships: "
            "{name: known, arguments: {to: ref('customers'), field: id}}}]}]}]",
        },
    )
    product = Product(shop, home)
    assert product.run("daily", **varying(customer=9)) == {
        "orders": f"test known failed: {ONE}",
        "daily": "it reads orders, which was withheld",
    }
    assert product.run("daily") == {}
    assert product.rows("daily") == [1] and product.rows("customers") == []


@pytest.mark.slow
def test_what_passed_is_kept_though_its_table_is_gone(shop: Path, home: FloeHome, tmp_path: Path) -> None:
    """Somebody dropped the table, or the model is published only from now on: the rows that were built are still there."""
    data = tmp_path / "data.csv"
    data.write_text("id\n1\n2\n")
    events = EVENTS.replace("DATA", str(data))
    write(
        shop,
        {
            "models/events.sql": events,
            "models/late.sql": events.replace(
                "'incremental'", "'incremental', meta={'floe': {'publish': false}}"
            ),
        },
    )
    assert Product(shop, home).run() == {}
    open_catalog(None, None, home=home).drop_table("shop.events")
    data.write_text("id\n3\n")
    write(shop, {"models/late.sql": events})
    product = Product(shop, home)
    assert product.run() == {}
    assert product.rows("events") == product.rows("late") == [1, 2, 3]
