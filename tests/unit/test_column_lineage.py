"""Which columns each column of a query is computed from."""

from __future__ import annotations

from functools import partial

import pytest

from floe_dagster.observability import column_lineage as module
from floe_dagster.observability.column_lineage import COLUMN_LIMIT, DEPTH_LIMIT

column_lineage = partial(module.column_lineage, dialect="duckdb")

ORDERS = ("db", "main", "orders")
CUSTOMERS = ("db", "main", "customers")
SCHEMAS = {
    ORDERS: {"id": "INTEGER", "customer_id": "INTEGER", "Amount": "DECIMAL(18,2)"},
    CUSTOMERS: {"id": "INTEGER", "name": "VARCHAR"},
}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ('select id from "db"."main"."orders"', {"id": [(ORDERS, "id")]}),
        ("select * from db.main.customers", {"id": [(CUSTOMERS, "id")], "name": [(CUSTOMERS, "name")]}),
        (
            "with o as (select customer_id, sum(amount) as total from db.main.orders group by 1) "
            "select c.name, coalesce(o.total, 0) as total from db.main.customers c left join o on o.customer_id = c.id",
            {"name": [(CUSTOMERS, "name")], "total": [(ORDERS, "Amount")]},
        ),
        (
            "select id from db.main.orders union all select id from db.main.customers",
            {"id": [(CUSTOMERS, "id"), (ORDERS, "id")]},
        ),
        ("select 1 as one, now() as at", {"one": [], "at": []}),
        (
            "select id, row_number() over (partition by customer_id order by amount) as n from db.main.orders",
            {"id": [(ORDERS, "id")], "n": [(ORDERS, "Amount"), (ORDERS, "customer_id")]},
        ),
        ("select id from elsewhere.main.orders", {"id": []}),
    ],
)
def test_of(sql: str, expected: dict[str, list[tuple[tuple[str, str, str], str]]]) -> None:
    assert column_lineage(sql, SCHEMAS, expected) == expected


@pytest.mark.parametrize("sql", ["", "select from where", "this is no sql ("])
def test_what_cannot_be_read_has_none(sql: str) -> None:
    assert column_lineage(sql, SCHEMAS, ["id"]) == {}


DEEP = [
    ("(", ")"),
    ("[", "]"),
    ("{'a': ", "}"),
    ("abs(", ")"),
    ("not ", ""),
    ("- ", ""),
    ("case when true then ", " end"),
    ("(select ", ")"),
]


@pytest.mark.parametrize(("opening", "closing"), DEEP)
@pytest.mark.parametrize("depth", [50, 5000])
def test_nesting_ends_neither_the_process_nor_ones_patience(opening: str, closing: str, depth: int) -> None:
    sql = f"select {opening * depth}id{closing * depth} as id from db.main.orders"
    found = column_lineage(sql, SCHEMAS, ["id"])
    assert (found == {}) == (depth > DEPTH_LIMIT)


def test_long_chains_are_no_nesting() -> None:
    terms = " + ".join(["amount"] * 1000)
    unions = " union all ".join(["select amount from db.main.orders"] * 300)
    expected = {"Amount": [(ORDERS, "Amount")]}
    assert column_lineage(f"select {terms} as amount from db.main.orders", SCHEMAS, ["Amount"]) == expected
    assert column_lineage(unions, SCHEMAS, ["Amount"]) == expected


def test_very_wide_tables_have_none() -> None:
    columns = [f"c{number}" for number in range(COLUMN_LIMIT + 1)]
    assert column_lineage(f"select {', '.join(f'1 as {c}' for c in columns)}", {}, columns) == {}
