"""Tests that cannot fail are found and are no coverage, in whatever way they are written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floe_dagster.findings import Finding
from floe_dagster.policies.allowed import Allowed
from floe_dagster.policies.quality_gates import QualityGates
from floe_dagster.policies.sql import has_no_rows, never_holds, relations_read
from tests.unit.test_policies import evaluate, found, model

REF = "{{ ref('a') }}"


def data_test(
    name: str = "unique_a", *, raw: str | None = None, of: str = "a", kind: str = "unique", **config: Any
) -> dict[str, Any]:
    """A test as dbt's manifest describes it: a generic one, or a singular one with its SQL."""
    return {
        "unique_id": f"test.shop.{name}",
        "resource_type": "test",
        "package_name": "shop",
        "name": name,
        "attached_node": None if raw is not None else f"model.shop.{of}",
        "test_metadata": None if raw is not None else {"name": kind},
        "raw_code": raw if raw is not None else "{{ test_unique(**_dbt_generic_test_kwargs) }}",
        "depends_on": {"nodes": [f"model.shop.{of}"], "macros": []},
        "original_file_path": f"tests/{name}.sql" if raw is not None else "models/schema.yml",
        "config": {
            "severity": "ERROR",
            "error_if": "!= 0",
            "fail_calc": "count(*)",
            "enabled": True,
            **config,
        },
    }


def judged(test: dict[str, Any], **context: Any) -> tuple[list[Finding], list[Finding]]:
    """Return what is said of the test, and of coverage."""
    gates = QualityGates(minimum_test_coverage=100)
    report = evaluate(model("a"), test, quality_gates=gates, engine="duckdb", **context)
    return found(report, "weak_tests"), found(report, "test_coverage")


WEAK: list[tuple[str, dict[str, Any]]] = [
    *(
        ("where", {"where": where})
        for where in (
            "1=0", "false", "FALSE", "1 = 2 and id > 3", "not true", "null", "id <> id", "id < id", "id = 1 and id = 2",
            "(1=0)", "id > 1 and (2 < 1)", "'a' = 'b'", "id in (select 1 where false)", "exists (select 1 limit 0)", "0",
            "id is null and id = 1", "id and not id", "id between 5 and 1", "id > 5 and id < 3", "1=0 or 2=1", "-- all\nfalse",
        )
    ),
    ("limit", {"limit": 0}),
    ("limit", {"limit": "0"}),
    *(
        ("threshold", {"error_if": condition, "warn_if": condition})
        for condition in (
            ">1000000", "> 1000000", "<0", "< 0", "= -1", "=-1", "> 10000", "between 1 and 5", "= 7", "is null", "!= 0 and 1=0",
        )
    ),
    ("threshold", {"fail_calc": "0"}),
    ("threshold", {"fail_calc": "count(*) * 0"}),
    *(
        ("empty", {"raw": raw})
        for raw in (
            "", "-- " + REF, f"select 1 where false -- {REF}", f"select * from {REF} limit 0", f"select * from {REF} where 1=0",
            f"with x as (select * from {REF} where false) select * from x", f"select * from (select * from {REF} limit 0) x",
            f"select 1 from {REF} where 1=0 union all select 2 where false", f"/* {REF} */ select 1 as a from range(0)",
            f"{{# {REF} #}} select 1 where 1 = 2", f"{{{{ config(tags=['x']) }}}} select * from {REF} where false",
            f"select count(*) from {REF} having 1=0", f"select id from {REF} except select id from {REF} limit 0",
        )
    ),
]  # fmt: skip
STRONG: list[dict[str, Any]] = [
    {},
    *(
        {"where": w}
        for w in ("id > 0", "1=1", "true", "id = 1 or id = 2", "at > '{{ var(\"since\") }}'", "id in (1, 2)")
    ),
    *({"error_if": c} for c in ("!= 0", ">0", "> 100", ">= 10000", ">10 or 1=1")),
    {"limit": 10},
    {"fail_calc": "max(n)"},
    *(
        {"raw": raw}
        for raw in (
            f"select * from {REF} where id is null",
            f"select count(*) from {REF} where 1=0",
            f"with x as (select * from {REF}) select * from x where id < 0",
            f"{{% if target.type == 'duckdb' %}} select 1 from {REF} {{% else %}} select 2 {{% endif %}}",
            f"select 1 from {REF} where false union all select id from {REF}",
        )
    ),
]


@pytest.mark.parametrize(("kind", "how"), WEAK)
def test_a_test_that_cannot_fail_is_found_and_covers_nothing(kind: str, how: dict[str, Any]) -> None:
    weak, uncovered = judged(data_test(**how))
    assert [(f.code, f.model, bool(f.fix)) for f in weak] == [("weak-test", "unique_a", True)]
    assert [f.model for f in uncovered] == ["a"]
    allowed = judged(data_test(**how), allow=Allowed(weak_tests=[kind]))
    assert allowed[0] == []


@pytest.mark.parametrize("how", STRONG)
def test_a_test_that_can_fail_counts(how: dict[str, Any]) -> None:
    assert judged(data_test(**how)) == ([], [])


def test_a_test_that_only_warns_is_no_coverage_and_fine_beside_one_that_fails() -> None:
    warns = data_test("warns", severity="warn")
    weak, uncovered = judged(warns)
    assert [(f.model, "only warns" in f.message) for f in weak] == [("warns", True)]
    assert [f.model for f in uncovered] == ["a"]
    gates = QualityGates(minimum_test_coverage=100)
    report = evaluate(model("a"), warns, data_test("fails"), quality_gates=gates, engine="duckdb")
    assert report.findings == []
    # Where nobody asks for coverage, a warning is what it says.
    assert found(evaluate(model("a"), warns), "weak_tests") == []
    assert judged(warns, allow=Allowed(weak_tests=["severity"])) == ([], [])


def test_a_singular_test_covers_what_its_sql_reads_and_not_what_a_comment_names() -> None:
    both = data_test("both", raw=f"select * from {REF} -- {{{{ ref('b') }}}}")
    both["depends_on"]["nodes"].append("model.shop.b")
    gates = QualityGates(minimum_test_coverage=100)
    report = evaluate(model("a"), model("b"), both, quality_gates=gates)
    assert [f.model for f in found(report, "test_coverage")] == ["b"]


def test_a_test_that_is_switched_off_is_found_and_one_whose_model_is_off_is_not() -> None:
    off = {**data_test("off", enabled=False)}
    of_nothing = {**data_test("of_nothing", of="gone", enabled=False)}
    report = evaluate(model("a"), disabled=[off, of_nothing])
    assert [f.model for f in found(report, "weak_tests")] == ["off"]
    assert (
        found(evaluate(model("a"), disabled=[off], allow=Allowed(weak_tests=["disabled"])), "weak_tests")
        == []
    )


def test_an_empty_generic_test_of_the_project_covers_nothing() -> None:
    macro = {
        "unique_id": "macro.shop.test_fine",
        "resource_type": "macro",
        "package_name": "shop",
        "name": "test_fine",
        "original_file_path": "macros/t.sql",
        "macro_sql": "{% test fine(model, column_name) %} select 1 where false {% endtest %}",
    }
    weak, uncovered = judged(data_test(kind="fine"), macros=[macro])
    assert len(weak) == 1 and [f.model for f in uncovered] == ["a"]
    macro["macro_sql"] = "{% test fine(model) %} select * from {{ model }} where x < 0 {% endtest %}"
    assert judged(data_test(kind="fine"), macros=[macro]) == ([], [])


FALSE = st.recursive(
    st.sampled_from(["false", "1=0", "id <> id", "2 < 1", "null"]),
    lambda inner: st.one_of(
        st.builds("({}) and x > 1".format, inner),
        st.builds("y = 2 and ({})".format, inner),
        st.builds("({}) or ({})".format, inner, inner),
    ),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(
    condition=FALSE,
    template=st.sampled_from(
        ["select * from t where {}", "select 1 where {}", "with a as (select 1 where {}) select * from a"]
    ),
)
def test_whatever_is_built_of_what_never_holds_never_holds(condition: str, template: str) -> None:
    assert never_holds(condition, "duckdb")
    assert has_no_rows(template.format(condition), "duckdb")
    assert not never_holds(f"({condition}) or id = 1", "duckdb")


@pytest.mark.parametrize(
    ("sql", "read"),
    [
        ("select * from main.orders", ["main.orders"]),
        ('select * from "shop"."main"."orders"', ["shop.main.orders"]),
        ("select * from {{ ref('a') }} join raw.b using (id)", ["raw.b"]),
        ("with orders as (select * from {{ ref('orders') }}) select * from orders", []),
        ("with orders as (select * from orders) select * from orders", ["orders"]),
        ("select (select max(id) from x.y) from {{ this }}", ["x.y"]),
        ("select * from a, b.c", ["a", "b.c"]),
        ("select * from range(10)", []),
        ("with latest as ({{ latest_by(ref('a'), 'id') }}) select * from latest join s.t using (id)", ["s.t"]),
        ("-- from main.orders\nselect 1", []),
        ("select 'from main.orders'", []),
        ("{% if execute %} select * from main.x {% else %} select 1 from {{ ref('b') }} {% endif %}", ["main.x"]),
        ("select 1 where exists (select 1 from s.t)", ["s.t"]),
        ("select * from {{ source('a', 'b') }} where id in (select id from s.t union select id from s.u)", ["s.t", "s.u"]),
    ],
)  # fmt: skip
def test_names_of_relations_in_sql_are_seen(sql: str, read: list[str]) -> None:
    assert sorted(".".join(parts) for parts, _line in relations_read(sql, "duckdb")) == read
