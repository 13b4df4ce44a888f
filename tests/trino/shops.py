"""A product on Trino, with a table of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
from pyiceberg.catalog import Catalog

from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.clones import is_clone

AUDIT = "floe_audit_shop"
SPEC = """\
apiVersion: floe.dev/v1
kind: FloeSpec
metadata: {name: shop, version: 1.0.0, owner: shop@example.com}
platform: {manifest: ../manifest.yaml}
transforms:
  - name: orders
    table: {partition_by: [month(at)], sort_by: [id desc], properties: {write.target-file-size-bytes: "1048576"}}
  - name: daily
  - name: totals
  - name: growing
    table: {write_mode: append}
"""
ORDERS = """\
select c.id, c.name, cast({{ var('factor', 1) }} * c.amount as bigint) as amount,
       cast(date '2024-01-15' + interval '1' month * (c.id % 3) as timestamp(6)) as at
from {{ ref('raw_orders') }} as c
"""
TOTALS = """\
{{ config(materialized='incremental', incremental_strategy='merge', unique_key='id') }}
select id, amount, {{ var('factor', 1) }} as factor from {{ ref('orders') }}
{% if is_incremental() %} where id > {{ var('after', 3) }} {% endif %}
"""
TESTS = """\
models:
  - name: orders
    description: One row per order.
    columns:
      - {name: id, description: Number of the order., data_tests: [unique, not_null]}
"""
NOT_TOO_MUCH = "select id from {{ ref('orders') }} where amount > {{ var('most', 1000000) }}\n"


class Shop:
    """A product on Trino, and what stands of it."""

    def __init__(self, product: Path, home: FloeHome, catalog: Catalog, instance: dg.DagsterInstance) -> None:
        self.product = product
        self.home = home
        self.catalog = catalog
        self.instance = instance

    def run(self, *names: str, config: dict[str, Any] | None = None) -> Any:
        """Compile and run in this process; all of it, or some assets."""
        result = compile_product(self.product, home=self.home)
        assert result.bundle is not None, result.findings
        definitions = build_product_definitions(result.bundle, product_dir=self.product, home=self.home)
        options: dict[str, Any] = {}
        if names:
            options["asset_selection"] = [dg.AssetKey(["shop", name]) for name in names]
        return definitions.resolve_job_def("shop_run").execute_in_process(
            raise_on_error=False,
            instance=self.instance,
            run_config={"ops": {"shop_dbt": {"config": config or {}}}},
            **options,
        )

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the published rows as PyIceberg reads them."""
        rows: list[dict[str, Any]] = self.catalog.load_table(("shop", name)).scan().to_arrow().to_pylist()
        return sorted(rows, key=lambda row: str(row))

    def clones(self) -> list[str]:
        """Return the names of the clones that stand."""
        found = (self.catalog.load_table(identifier) for identifier in self.catalog.list_tables(AUDIT))
        return [".".join(table.name()) for table in found if is_clone(table)]


def reached(cluster: Any, catalog: str = "floe") -> dict[str, Any]:
    """Return `plugins.compute.config` for a cluster that asks for no password."""
    host, _, port = cluster.url.rpartition("/")[2].rpartition(":")
    return {"host": host, "port": int(port), "catalog": catalog}


def metadata(outcome: Any) -> dict[str, dict[str, Any]]:
    """Return what each materialization shows, by name of the asset."""
    return {
        event.asset_key.path[-1]: {key: value.value for key, value in event.metadata.items()}
        for event in outcome.asset_materializations_for_node("shop_dbt")
    }


def said(outcome: Any) -> str:
    """Return why the run failed."""
    failed = [event for event in outcome.all_events if event.event_type_value == "STEP_FAILURE"]
    return "\n".join(str(event.event_specific_data.error_display_string) for event in failed)
