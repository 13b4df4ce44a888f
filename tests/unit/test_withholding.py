"""Which assets a test withholds, held against the rule alone on whole graphs; and what is said of wrong `meta.floe.withholds`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floe_dagster.compilation.asset_index import asset_nodes
from floe_dagster.compilation.crossings import check_crossings
from floe_dagster.compilation.withholding import Withholding, check_withholding
from floe_dagster.schemas.product import ProductSpec


def model(name: str, *reads: str, materialized: str = "table") -> dict[str, Any]:
    """A model that reads others, and sources by `source.NAME`."""
    return {
        "resource_type": "model",
        "name": name,
        "package_name": "shop",
        "unique_id": _id(name),
        "alias": name,
        "original_file_path": f"models/{name}.sql",
        "config": {"materialized": materialized},
        "depends_on": {"nodes": [_id(read) for read in reads]},
    }


def a_test(name: str, *reads: str, attached: str | None = None, **stated: Any) -> dict[str, Any]:
    """A singular test; a generic one where it is attached. Of a source, dbt names it in the argument `model` alone."""
    generic: dict[str, Any] = {}
    if attached and attached.startswith("source."):
        source = ", ".join(repr(part) for part in _id(attached).split(".")[-2:])
        model = f"{{{{ get_where_subquery(source({source})) }}}}"
        generic = {"attached_node": None, "test_metadata": {"name": "unique", "kwargs": {"model": model}}}
    elif attached:
        generic = {"attached_node": _id(attached), "test_metadata": {"name": "unique"}}
    return {
        "resource_type": "test",
        "name": name,
        "package_name": "shop",
        "original_file_path": f"tests/{name}.sql",
        "config": {},
        "depends_on": {"nodes": [_id(read) for read in reads]},
        **generic,
        **stated,
    }


def saying(value: Any, **stated: Any) -> dict[str, Any]:
    return {"config": {"meta": {"floe": {"withholds": value}}}, **stated}


def manifest(*nodes: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"project_name": "shop"},
        "nodes": {f"{node['resource_type']}.shop.{node['name']}": node for node in nodes},
    }


def _id(name: str) -> str:
    if name.startswith("source.") and name.count(".") == 1:
        return f"source.shop.{name[7:]}.{name[7:]}"
    return name if name.startswith("source.") else f"model.shop.{name}"


GRAPH = (
    model("orders", "source.raw"),
    model("part", "orders", materialized="ephemeral"),
    model("deep", "part", "source.other", materialized="ephemeral"),
    model("mart", "deep"),
    model("wide", "part", "customers"),
    model("customers", "source.raw"),
)


@pytest.mark.parametrize(
    ("test", "withheld"),
    [
        (a_test("t", "orders"), "orders"),
        (a_test("t", "orders", "customers"), "orders customers"),
        (a_test("t", "part"), "mart wide"),
        (a_test("t", "deep"), "mart"),
        (a_test("t", "source.raw"), "customers orders"),
        (a_test("t", "source.other"), "mart"),
        (a_test("t", "orders", "source.raw"), "orders customers"),
        (a_test("t", "source.unread"), ""),
        (a_test("t"), ""),
        (a_test("t", "orders", "customers", **saying(["customers"])), "customers"),
        (a_test("t", "part", **saying(["wide"])), "wide"),
        # Generic: the model that it is attached to, whatever it is compared with.
        (a_test("t", "customers", "orders", attached="orders"), "orders"),
        (a_test("t", "orders", "source.raw", attached="orders"), "orders"),
        (a_test("t", "part", "customers", attached="part"), "mart wide"),
        (a_test("t", "source.raw", "mart", attached="source.raw"), "customers orders"),
        (a_test("t", "orders", resource_type="unit_test"), "orders"),
        (a_test("t", "part", resource_type="unit_test"), "mart wide"),
        # What cannot be used is a finding, and nothing is let through by it.
        (a_test("t", "orders", "customers", **saying([])), "orders customers"),
        (a_test("t", "orders", "customers", **saying("orders")), "orders customers"),
        (a_test("t", "orders", "customers", attached="orders", **saying(["customers"])), "orders"),
    ],
)
def test_what_a_test_withholds(test: dict[str, Any], withheld: str) -> None:
    graph = manifest(*GRAPH, test)
    found = Withholding(graph, asset_nodes(graph)).judged(test)
    assert [key.rpartition(".")[2] for key in found] == withheld.split()


FILES = {
    "tests/t.sql": "-- withholds nothing\n{{ config(\n  meta={'floe': {'withholds': ['x']}}\n) }}\nselect 1\n",
    "models/schema.yml": "models:\n  - name: customers\n    data_tests: [{a: {config: {meta: {floe: {}}}}}]\n"
    "  - name: orders\n    data_tests:\n      - unique:\n          config:\n            meta: {floe: {withholds: [orders]}}\n",
    "dbt_project.yml": "name: shop\ndata_tests:\n  +meta:\n    floe: {withholds: []}\n",
}


@pytest.mark.parametrize(
    ("value", "found", "allowed"),
    [
        ("orders", "'orders'", "a list with one or more of: customers, orders"),
        (3, "3", "a list with one or more of: customers, orders"),
        (None, "None", "a list with one or more of: customers, orders"),
        ({"orders": True}, "{'orders': True}", "a list with one or more of: customers, orders"),
        (["orders", 3], "['orders', 3]", "a list with one or more of: customers, orders"),
        ([], "[]", "one or more of: customers, orders"),
        (["order"], "order", "customers, orders"),
        (["orders", "mart"], "mart", "customers, orders"),
    ],
)
def test_a_value_that_cannot_be_used_is_a_finding_with_its_line(value: Any, found: str, allowed: str) -> None:
    graph = manifest(*GRAPH, a_test("t", "orders", "customers", **saying(value)))
    (finding,) = check_withholding(graph, asset_nodes(graph), "shop", FILES.get)
    assert (finding.code, finding.severity, finding.file, finding.line) == (
        "test-withholds",
        "error",
        "shop/tests/t.sql",
        3,
    )
    assert (finding.field, finding.found, finding.allowed) == ("config.meta.floe.withholds", found, allowed)
    assert finding.fix and "test 't'" in finding.message


def test_only_a_singular_test_names_what_it_withholds() -> None:
    stated = saying(["orders"], original_file_path="models/schema.yml")
    for test in (
        a_test("unique_orders", "orders", attached="orders", **stated),
        a_test("orders", "orders", resource_type="unit_test", **stated),
    ):
        graph = manifest(*GRAPH, test)
        (finding,) = check_withholding(graph, asset_nodes(graph), "shop", FILES.get)
        assert (finding.file, finding.line) == ("shop/models/schema.yml", 8)
        assert "only a singular test may" in finding.message


@pytest.mark.parametrize(
    ("floe", "said"),
    [(3, "no mapping"), (["orders"], "no mapping"), ({"witholds": ["orders"]}, "does not exist")],
)
def test_what_is_near_is_not_taken_for_nothing(floe: Any, said: str) -> None:
    graph = manifest(*GRAPH, a_test("t", "orders", config={"meta": {"floe": floe}}))
    (finding,) = check_withholding(graph, asset_nodes(graph), "shop", FILES.get)
    assert said in finding.message


def test_what_is_right_is_no_finding() -> None:
    tests = (
        a_test("one", "orders", "customers", **saying(["orders"])),
        a_test("two", "source.raw", **saying(["customers", "orders"])),
        a_test("three", "orders", config={"meta": {"floe": {"publish": False}, "owner": "x"}}),
    )
    graph = manifest(*GRAPH, *tests)
    assert check_withholding(graph, asset_nodes(graph), "shop", FILES.get) == []


def test_a_test_that_never_runs_is_told() -> None:
    graph = manifest(
        *GRAPH, a_test("t", "source.unread"), a_test("of_package", "source.unread", package_name="p")
    )
    (finding,) = check_withholding(graph, asset_nodes(graph), "shop", FILES.get)
    assert (finding.code, finding.severity, finding.file) == (
        "test-without-model",
        "warning",
        "shop/tests/t.sql",
    )


KINDS = st.sampled_from(["table", "table", "view", "ephemeral"])


@given(st.data())
def test_a_test_withholds_what_the_rule_says(data: st.DataObject) -> None:
    """On any graph: the rule, written down once more as what can be reached from what a test judges."""
    nodes: list[dict[str, Any]] = []
    names = ["source.a", "source.b"]
    for number in range(data.draw(st.integers(1, 6))):
        reads = data.draw(st.lists(st.sampled_from(names), max_size=3, unique=True))
        nodes.append(model(f"m{number}", *reads, materialized=data.draw(KINDS)))
        names.append(f"m{number}")
    reads = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
    attached = data.draw(st.sampled_from([None, *reads]))
    test = a_test("t", *reads, attached=attached)
    graph = manifest(*nodes, test)

    def stands_for(name: str) -> set[str]:
        if (
            not name.startswith("source.")
            and graph["nodes"][_id(name)]["config"]["materialized"] != "ephemeral"
        ):
            return {name}
        readers = (node["name"] for node in nodes if _id(name) in node["depends_on"]["nodes"])
        return {found for reader in readers for found in stands_for(reader)}

    rule = {found for name in ([attached] if attached else reads) for found in stands_for(name)}
    judged = Withholding(graph, asset_nodes(graph)).judged(test)
    assert {key.rpartition(".")[2] for key in judged} == rule and len(judged) == len(rule)


@pytest.mark.parametrize(
    ("test", "fix"),
    [
        (a_test("t", "a", "b"), "withholds: [b]"),
        (a_test("t", "a", "c"), "withholds: [c]"),
        (a_test("t", "b", "a", attached="a"), "severity: warn"),
        (a_test("t", "a", "b", **saying(["b"])), None),
        (a_test("t", "a", "b", config={"severity": "warn"}), None),
        (a_test("t", "a", "b", attached="b"), None),
        (a_test("t", "a", "d"), None),
        (a_test("t", "source.raw"), None),
    ],
)
def test_a_test_that_would_come_after_the_publication_does_not_compile(
    test: dict[str, Any], fix: str | None
) -> None:
    """Of a chain on two engines: `a` has to be published before `b` can be built, and `b` before `c`."""
    graph = manifest(model("a", "source.raw"), model("b", "a"), model("c", "b"), model("d", "a"), test)
    engines = {_id(name): "trino" if name == "b" else "duckdb" for name in "abcd"}
    spec = ProductSpec.model_construct(transforms=None)
    found = check_crossings(spec, None, graph, engines, "shop")  # type: ignore[arg-type]
    assert [each.code for each in found] == (["test-after-publication"] if fix else [])
    assert not fix or fix in (found[0].fix or "")
