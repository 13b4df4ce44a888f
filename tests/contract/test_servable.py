"""Whatever dbt's graph holds is refused with its place, or Dagster serves it.

The nodes here have the keys that dbt 1.11 writes into its manifest, as far as the project reads them; that dbt writes them
so is looked at in `tests/integration/test_odd_products.py`, with projects that it parses itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import orjson
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from floe_dagster.compilation.asset_index import build_asset_index, dagster_identifier
from floe_dagster.compilation.builder import build_artifacts
from floe_dagster.compilation.bundle import (
    ARTIFACT,
    ASSET_INDEX,
    DBT_MANIFEST,
    REPORT,
    Bundle,
    write_bundle,
)
from floe_dagster.compilation.documents import read_document
from floe_dagster.compilation.inheritance import load_manifest_chain
from floe_dagster.compilation.servable import RESERVED_COLUMN, check_servable
from floe_dagster.compilation.validation import parse_product
from floe_dagster.definitions.compiling import DagsterOrchestrator
from floe_dagster.findings import Finding
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.types import UnsupportedTypeError, check_name
from floe_dagster.policies.places import DescriptionPlaces
from floe_dagster.schemas.product_index import ProductIndex
from floe_dagster.schemas.product_index_json import index_to_json


def node(name: str, kind: str = "model", **fields: Any) -> dict[str, Any]:
    """A model, seed or snapshot as dbt's manifest describes it."""
    package = fields.pop("package", "shop")
    unique_id = f"{kind}.{package}.{name}" + (f".v{fields['version']}" if "version" in fields else "")
    suffix = "csv" if kind == "seed" else "sql"
    return {
        "unique_id": unique_id,
        "resource_type": kind,
        "package_name": package,
        "name": name,
        "fqn": [package, name],
        "database": "shop",
        "schema": "main",
        "alias": fields.pop("alias", name),
        "depends_on": {"nodes": list(fields.pop("reads", ()))},
        "original_file_path": f"{kind}s/{name}.{suffix}",
        "description": "",
        "columns": {column["name"]: column for column in fields.pop("columns", ())},
        "config": {"materialized": fields.pop("materialized", "seed" if kind == "seed" else "table")},
        "meta": fields.pop("meta", {}),
        "tags": fields.pop("tags", []),
        "checksum": {"checksum": "0"},
        **fields,
    }


def singular(name: str, *reads: str) -> dict[str, Any]:
    """A data test of its own, as dbt's manifest describes it."""
    return {
        "unique_id": f"test.shop.{name}",
        "resource_type": "test",
        "package_name": "shop",
        "name": name,
        "attached_node": None,
        "depends_on": {"nodes": list(reads)},
        "original_file_path": f"tests/{name}.sql",
        "config": {"severity": "ERROR"},
        "description": "",
    }


def manifest_of(nodes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {"metadata": {"project_name": "shop"}, "nodes": {each["unique_id"]: dict(each) for each in nodes}}


def findings(*nodes: Mapping[str, Any]) -> list[Finding]:
    return check_servable(manifest_of(nodes), "products/shop", lambda _path: None)


def loading_problem(product: Path, nodes: Iterable[Mapping[str, Any]]) -> str | None:
    """Compile as the pipeline does from dbt's manifest on; return why Dagster cannot serve it."""
    manifest = manifest_of(nodes)
    spec = parse_product(read_document(product / "floe.yaml", root=product.parent))
    chain = load_manifest_chain(product.parent / "manifest.yaml", root=product.parent)
    assert spec.value is not None and chain.merged is not None
    artifact = build_artifacts(
        spec.value,
        chain,
        manifest,
        source_hash="sha256:" + "0" * 64,
        dbt_profiles={},
        compiled_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    places = DescriptionPlaces(lambda _path: None)
    index = build_asset_index(artifact, manifest, spec=spec.value, manifest=chain.merged, places=places)
    path = product.parent / "bundle.zip"
    write_bundle(
        path,
        digest=artifact.metadata.source_hash,
        slug="shop",
        product_name="shop",
        documents={
            ARTIFACT: artifact.model_dump_json().encode(),
            DBT_MANIFEST: orjson.dumps(manifest),
            ASSET_INDEX: index_to_json(index),
            REPORT: b"{}",
        },
        sources_root=product,
        sources=["dbt_project.yml"],
        project="shop",
    )
    home = FloeHome(product.parent / "home")
    return DagsterOrchestrator().loading_problem(Bundle.open(path), product, None, home)


FINE_NAMES = st.text(st.sampled_from("aAb_"), min_size=1, max_size=4)
ODD_NAMES = FINE_NAMES | FINE_NAMES | st.text(st.sampled_from("aA_.-ß '\"/\\\n"), min_size=1, max_size=3)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
COLUMN = st.fixed_dictionaries(
    {"name": st.text(min_size=1, max_size=20)},
    optional={
        "description": st.text(max_size=20),
        "data_type": st.none() | st.text(max_size=20),
        "meta": st.dictionaries(st.just("classification"), JSON),
        "tags": st.lists(st.text(max_size=70), max_size=2),
    },
)


@st.composite
def graphs(draw: st.DrawFn) -> list[dict[str, Any]]:
    kinds = st.sampled_from(["model", "model", "seed", "snapshot"])
    nodes: dict[str, dict[str, Any]] = {}
    for name in draw(st.lists(ODD_NAMES, min_size=1, max_size=4)):
        version = draw(st.none() | st.none() | st.sampled_from([1, 2, "x"]))
        materialized = st.sampled_from(["table", "view", "ephemeral", "incremental", "größe", "x" * 70])
        made = node(
            name,
            "model" if version is not None else draw(kinds),
            **({} if version is None else {"version": version}),
            package=draw(st.sampled_from(["shop", "shop", "hub"])),
            alias=draw(st.just(name) | ODD_NAMES),
            materialized=draw(materialized),
            meta=draw(st.dictionaries(st.sampled_from(["owner", "floe", "x"]), JSON, max_size=2)),
            tags=draw(st.lists(st.text(max_size=70), max_size=2)),
            columns=draw(st.lists(COLUMN, max_size=2)),
            description=draw(st.text(max_size=20)),
        )
        nodes[made["unique_id"]] = made
    keys = st.lists(st.sampled_from(sorted(nodes)), max_size=2, unique=True)
    for made in nodes.values():
        made["depends_on"]["nodes"] = draw(keys)
    for name in draw(st.lists(ODD_NAMES, max_size=4)):
        test = singular(name, *draw(keys))
        nodes[test["unique_id"]] = test
    return list(nodes.values())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nodes=graphs())
def test_every_graph_is_refused_with_its_place_or_served(shop: Path, nodes: list[dict[str, Any]]) -> None:
    found = findings(*nodes)
    assert all(each.severity == "error" and each.file and each.line and each.fix for each in found)
    event(f"refused: {bool(found)}")
    if not found:
        assert loading_problem(shop, nodes) is None


def said(found: Iterable[Finding]) -> list[tuple[str, str | None]]:
    return [(each.code, each.model) for each in found]


@pytest.mark.parametrize(
    "name",
    ["größe", "a b", "a'b", 'a"b', "a$b", "a/b", "../b", "..", ".a", "-a", "a\n", "a:b", "ａ", "x" * 252],
)
@pytest.mark.parametrize("kind", ["model", "seed", "snapshot"])
def test_a_name_that_dagster_or_a_file_cannot_have_is_refused(name: str, kind: str) -> None:
    (finding,) = findings(node(name, kind))
    assert finding.code == "unsupported-name" and finding.model == name
    assert finding.found and finding.allowed and finding.fix
    assert finding.file == f"products/shop/{kind}s/{name}.{'csv' if kind == 'seed' else 'sql'}"


def test_names_that_dagster_takes_are_fine(shop: Path) -> None:
    names = ["orders", "ORDERS_2", "a.b", "a-c", "1a", "select", "input", "_", "__x", "x" * 251]
    nodes = [node(name) for name in names]
    assert findings(*nodes) == []
    assert loading_problem(shop, nodes) is None


@pytest.mark.parametrize("name", ["platform_manifest", "dbt_manifest"])
@pytest.mark.parametrize("kind", ["model", "seed", "snapshot"])
def test_no_node_has_the_name_of_a_compile_asset(shop: Path, kind: str, name: str) -> None:
    assert said(findings(node(name, kind))) == [("reserved-model-name", name)]
    assert loading_problem(shop, [node(name, kind)]) is not None


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param((node("a"), node("a", "seed", alias="b")), id="a model and a seed"),
        pytest.param((node("a"), node("a", "snapshot", alias="b")), id="a model and a snapshot"),
        pytest.param((node("a"), node("a", package="hub", alias="b")), id="the project and a package"),
        pytest.param((node("a.b"), node("a_b")), id="one name to Dagster"),
        pytest.param((node("a-b"), node("a.b")), id="one name to Dagster without a letter in common"),
        pytest.param((node("A"), node("a", alias="b")), id="tables that differ in case"),
        pytest.param((node("a", alias="X"), node("b", alias="x")), id="relations that differ in case"),
        pytest.param(
            (node("a", alias="X", materialized="view"), node("b", "seed", alias="x")), id="not published"
        ),
    ],
)
def test_two_nodes_that_cannot_be_told_apart_are_refused_once(pair: tuple[Any, Any]) -> None:
    (finding,) = findings(*pair)
    assert finding.code == "duplicate-name" and finding.allowed and finding.fix
    assert {pair[0]["name"], pair[1]["name"]} <= set(finding.message.split("'"))
    # The one in the project is to be changed, not the one in the package.
    assert finding.file and "dbt_packages" not in finding.file


@pytest.mark.parametrize(
    "pair",
    [
        (node("a"), node("b")),
        (node("A", materialized="view"), node("a", alias="b")),
        (node("a", materialized="ephemeral"), node("A")),
        (node("a", schema="x"), node("b", alias="a", schema="y")),
    ],
)
def test_two_nodes_that_can_be_told_apart_are_fine(shop: Path, pair: tuple[Any, Any]) -> None:
    assert findings(*pair) == []
    assert loading_problem(shop, pair) is None


@pytest.mark.parametrize("versions", [(1,), (1, 2), ("a", "b", "c"), (1, 1.5)])
def test_versions_of_a_model_are_served_under_their_aliases(shop: Path, versions: tuple[Any, ...]) -> None:
    nodes = [
        node("dim", version=v, alias=f"dim_v{v}".replace(".", "_"), fqn=["shop", "dim", f"v{v}"])
        for v in versions
    ]
    nodes.append(node("use", reads=[nodes[0]["unique_id"]]))
    assert findings(*nodes) == []
    assert loading_problem(shop, nodes) is None


@pytest.mark.parametrize(
    ("alias", "code"),
    [
        ("größe", "unsupported-name"),
        ("a b", "unsupported-name"),
        ("dbt_manifest", "reserved-model-name"),
        ("orders", "duplicate-name"),
        ("dim_v2", "duplicate-name"),
        ("DIM_V2", "duplicate-name"),
        ("dim.v2", "duplicate-name"),
    ],
)
def test_an_alias_of_a_version_that_cannot_be_served_is_refused(alias: str, code: str) -> None:
    one = node("dim", version=1, alias=alias, schema="other")
    (finding,) = findings(one, node("dim", version=2, alias="dim_v2"), node("orders"))
    assert (finding.code, finding.fix is not None) == (code, True)
    assert alias in finding.message


@pytest.mark.parametrize(
    ("reads", "path"),
    [
        ({"a": ["a"]}, "a -> a"),
        ({"a": ["b"], "b": ["a"]}, "a -> b -> a"),
        ({"a": ["b"], "b": ["e"], "e": ["a"]}, "a -> b -> e -> a"),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, "b -> c -> b"),
    ],
)
def test_a_circle_is_found_with_its_path(shop: Path, reads: dict[str, list[str]], path: str) -> None:
    nodes = [
        node(
            name, materialized="ephemeral" if name == "e" else "table", reads=[f"model.shop.{r}" for r in up]
        )
        for name, up in reads.items()
    ]
    (finding,) = findings(*nodes)
    assert (finding.code, finding.found) == ("circular-ref", path)
    assert finding.file == f"products/shop/models/{path[0]}.sql"
    assert (finding.fix and all(f"{name}.sql" in finding.fix for name in path.split(" -> "))) or len(
        nodes
    ) == 1


def test_a_circle_through_a_function_is_found() -> None:
    manifest = manifest_of([node("a", reads=["function.shop.f"])])
    manifest["functions"] = {
        "function.shop.f": node("f", "function", reads=["model.shop.a"], original_file_path="functions/f.sql")
    }
    (finding,) = check_servable(manifest, "", lambda _path: None)
    assert finding.found == "a -> f -> a"


def test_a_column_that_duckdb_keeps_for_itself_is_refused_where_it_is_published() -> None:
    column = {"name": "__duckdb_field_id"}
    assert said(findings(node("a", columns=[column]))) == [("unsupported-name", "a")]
    assert findings(node("a", columns=[column], materialized="view")) == []
    with pytest.raises(UnsupportedTypeError):
        check_name(RESERVED_COLUMN)


CHECKS = [
    # A check's output would be called like an asset's …
    ({"orders": ["total"], "orders_total": []}, {"total_1"}),
    # … or like that of another asset's check …
    ({"a": ["b_c"], "a_b": ["c"]}, {"b_c", "c_1"}),
    # … or like one that got its number for another reason.
    ({"a": ["x.y", "x-y", "x_y_1", "x_y"]}, {"x_y", "x_y_1", "x_y_1_1", "x_y_2"}),
]


@pytest.mark.parametrize(("tests", "names"), CHECKS)
def test_checks_whose_outputs_would_have_one_name_are_numbered(
    shop: Path, tests: dict[str, list[str]], names: set[str]
) -> None:
    nodes = [node(name) for name in tests]
    nodes += [singular(test, f"model.shop.{name}") for name, own in tests.items() for test in own]
    assert findings(*nodes) == []
    assert loading_problem(shop, nodes) is None
    index = read_index(shop)
    assert {check.name for check in index.checks} == names


def read_index(product: Path) -> ProductIndex:
    return Bundle.open(product.parent / "bundle.zip").index()


@given(name=st.text(st.sampled_from("aB1_.-"), min_size=1, max_size=8))
def test_dagster_makes_of_a_name_what_the_compilation_expects(name: str) -> None:
    assert dg.AssetKey([name]).to_python_identifier() == dagster_identifier(name)
    spec = dg.AssetCheckSpec(name="x", asset=dg.AssetKey([name]))
    assert spec.get_python_identifier() == f"{dagster_identifier(name)}_x"
