"""A product over TPC-H, eight models in one set of files for DuckDB and Trino, and the rows that it reads.

The rows come from Trino's built-in connector and are written once, into Iceberg tables of the catalog of the test. Trino
reads these tables, DuckDB copies of the very same Parquet files on the local disk: the connector makes its rows anew for
each scan, which no product's source does and DuckDB could not do, and DuckDB alone has no way to the store here. What
differs is that Trino asks MinIO, on this machine, for the bytes.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import yaml

SOURCES = ("customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier")
MODELS = {
    "stg_orders": """\
select
    o_orderkey as order_key,
    o_custkey as customer_key,
    o_orderstatus as status,
    cast(o_totalprice as decimal(14, 2)) as total_price,
    o_orderdate as order_date,
    o_orderpriority as priority
from {{ source('tpch', 'orders') }}
""",
    "stg_lineitem": """\
select
    l_orderkey as order_key,
    l_linenumber as line_number,
    l_partkey as part_key,
    l_suppkey as supplier_key,
    cast(l_quantity as decimal(12, 2)) as quantity,
    cast(l_extendedprice as decimal(12, 2)) as extended_price,
    cast(l_extendedprice * (1 - l_discount) as decimal(14, 4)) as revenue,
    cast(l_discount as double) as discount,
    l_returnflag as return_flag,
    l_linestatus as line_status,
    l_shipdate as ship_date,
    l_shipmode as ship_mode
from {{ source('tpch', 'lineitem') }}
""",
    "stg_customers": """\
{{ config(materialized='view') }}
select
    customer.c_custkey as customer_key,
    customer.c_mktsegment as segment,
    nation.n_name as nation,
    region.r_name as region
from {{ source('tpch', 'customer') }} as customer
inner join {{ source('tpch', 'nation') }} as nation on customer.c_nationkey = nation.n_nationkey
inner join {{ source('tpch', 'region') }} as region on nation.n_regionkey = region.r_regionkey
""",
    "int_order_lines": """\
select
    lines.order_key,
    lines.line_number,
    lines.part_key,
    lines.supplier_key,
    orders.customer_key,
    customers.segment,
    customers.nation,
    orders.order_date,
    lines.ship_date,
    lines.quantity,
    lines.revenue,
    cast(lines.quantity * cast(offers.ps_supplycost as decimal(12, 2)) as decimal(14, 4)) as cost
from {{ ref('stg_lineitem') }} as lines
inner join {{ ref('stg_orders') }} as orders on lines.order_key = orders.order_key
inner join {{ ref('stg_customers') }} as customers on orders.customer_key = customers.customer_key
inner join {{ source('tpch', 'partsupp') }} as offers
    on lines.part_key = offers.ps_partkey and lines.supplier_key = offers.ps_suppkey
""",
    "fct_orders": """\
{{ config(materialized='incremental', incremental_strategy='merge', unique_key='order_key') }}
select
    order_key,
    customer_key,
    order_date,
    cast(count(*) as bigint) as order_lines,
    cast(sum(quantity) as decimal(18, 2)) as quantity,
    cast(sum(revenue) as decimal(18, 4)) as revenue,
    cast(sum(revenue - cost) as decimal(18, 4)) as profit,
    max(ship_date) as last_shipped
from {{ ref('int_order_lines') }}
{% if is_incremental() %}
where order_date >= (select max(order_date) - interval '90' day from {{ this }})
{% endif %}
group by order_key, customer_key, order_date
""",
    "mart_pricing_summary": """\
select
    return_flag,
    line_status,
    cast(sum(quantity) as decimal(38, 2)) as quantity,
    cast(sum(extended_price) as decimal(38, 2)) as base_price,
    cast(sum(revenue) as decimal(38, 4)) as revenue,
    avg(cast(extended_price as double)) as average_price,
    avg(discount) as average_discount,
    cast(count(*) as bigint) as order_lines
from {{ ref('stg_lineitem') }}
where ship_date <= date '1998-09-02'
group by return_flag, line_status
""",
    "mart_nation_months": """\
select
    nation,
    segment,
    cast(date_trunc('month', order_date) as date) as order_month,
    cast(sum(revenue) as decimal(38, 4)) as revenue,
    cast(count(distinct customer_key) as bigint) as customers,
    cast(count(distinct order_key) as bigint) as orders
from {{ ref('int_order_lines') }}
group by nation, segment, cast(date_trunc('month', order_date) as date)
""",
    "mart_brand_profit": """\
select
    part.p_brand as brand,
    nation.n_name as supplier_nation,
    cast(sum(lines.revenue - lines.cost) as decimal(38, 4)) as profit,
    sum(cast(lines.revenue as double)) / nullif(sum(cast(lines.quantity as double)), 0) as revenue_per_piece
from {{ ref('int_order_lines') }} as lines
inner join {{ source('tpch', 'part') }} as part on lines.part_key = part.p_partkey
inner join {{ source('tpch', 'supplier') }} as supplier on lines.supplier_key = supplier.s_suppkey
inner join {{ source('tpch', 'nation') }} as nation on supplier.s_nationkey = nation.n_nationkey
group by part.p_brand, nation.n_name
""",
}
PUBLISHED = tuple(sorted(set(MODELS) - {"stg_customers"}))
"""All but the view."""
KEYS = {"stg_orders": "order_key", "fct_orders": "order_key"}
"""Unique and there, as a test of each says."""


def write_product(root: Path, name: str, rows: Path, schema: str, manifest: dict[str, Any]) -> Path:
    """Write the product and the manifest beside it, and return the product's folder.

    Args:
        root: A folder of its own.
        name: Of the product, with underscores.
        rows: Of DuckDB, as `write_rows` left them.
        schema: Of Trino, with the same rows.
        manifest: The platform.
    """
    folder = root / name
    (folder / "models").mkdir(parents=True)
    (root / "workspace.yaml").write_text("load_from: []\n")
    _dump(root / "manifest.yaml", manifest)
    spec = {
        "apiVersion": "floe.dev/v1",
        "kind": "FloeSpec",
        "metadata": {"name": name.replace("_", "-"), "version": "1.0.0", "owner": "bench@example.com"},
        "platform": {"manifest": "../manifest.yaml"},
    }
    _dump(folder / "floe.yaml", spec)
    project = {"name": name, "version": "1.0.0", "profile": name, "models": {"+materialized": "table"}}
    _dump(folder / "dbt_project.yml", project)
    for model, sql in MODELS.items():
        (folder / "models" / f"{model}.sql").write_text(sql)
    # dbt-duckdb reads from the files where `external_location` says so; to dbt-trino it means nothing.
    source = {
        "name": "tpch",
        "schema": schema,
        "config": {"meta": {"external_location": f"{rows}/{{name}}/*.parquet"}},
        "tables": [{"name": table} for table in SOURCES],
    }
    models = [
        {
            "name": model,
            "description": "Of the benchmark.",
            "columns": [{"name": KEYS[model], "description": "Key.", "data_tests": ["unique", "not_null"]}]
            if model in KEYS
            else [],
        }
        for model in MODELS
    ]
    _dump(folder / "models" / "schema.yml", {"sources": [source], "models": models})
    return folder


def write_rows(cluster: Any, catalog: Any, scale: float, schema: str, into: Path) -> None:
    """Write the connector's eight tables into Iceberg, and their files into a folder for DuckDB.

    Args:
        cluster: A Trino with the catalogs `floe` and `tpch`.
        catalog: What Trino has as `floe`.
        scale: Of TPC-H.
        schema: Where the tables are made.
        into: The folder.
    """
    cluster.query(f"create schema floe.{schema}")
    for name in SOURCES:
        cluster.query(f"create table floe.{schema}.{name} as select * from {connector(scale)}.{name}")
        table = catalog.load_table((schema, name))
        (into / name).mkdir(parents=True)
        for number, task in enumerate(table.scan().plan_files()):
            with (
                table.io.new_input(task.file.file_path).open() as source,
                (into / name / f"{number}.parquet").open("wb") as target,
            ):
                shutil.copyfileobj(source, target, 8 << 20)


def connector(scale: float) -> str:
    """Return the schema of Trino's built-in connector for a scale."""
    return f'tpch."sf{scale:g}"'


def scan_seconds(cluster: Any, scale: float, schema: str) -> tuple[float, float]:
    """Return the seconds of one scan of `lineitem`, from the connector and from the copy; the second time of each."""
    found = []
    for source in (connector(scale), f"floe.{schema}"):
        for _time in range(2):
            begun = time.perf_counter()
            cluster.query(
                f"select sum(l_extendedprice * (1 - l_discount)), max(l_shipdate) from {source}.lineitem"
            )
            elapsed = time.perf_counter() - begun
        found.append(elapsed)
    return found[0], found[1]


def seen(cluster: Any, schema: str, table: str) -> dict[str, Any]:
    """Return the number of rows, and by column its type and what its values come to, in whatever order they stand."""
    place = f"floe.{schema}.{table}"
    columns = cluster.query(f"show columns from {place}").rows
    sums = [
        # Floating point is added in another order each time; of all else a checksum knows each value.
        f"sum({name})" if kind == "double" else f"to_hex(checksum({name}))"
        for name, kind, *_ in columns
    ]
    count, *values = cluster.query(f"select count(*), {', '.join(sums)} from {place}").rows[0]
    named = {f"{name} {kind}": value for (name, kind, *_), value in zip(columns, values, strict=True)}
    return {"rows": count, **named}


def _dump(path: Path, document: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(document, sort_keys=False))
