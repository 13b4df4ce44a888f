"""A dbt that is scripted: it builds what it is asked for in the product's DuckDB file, by the same queries as dbt.

What it assumes of dbt: what `dbt_rules` says of order and skipping, what stands below of each materialization, the keys of
`run_results.json` that a run reads, and the keys of the manifest that the index is made from. Every story that goes through real
dbt is held to the same oracle, and its manifest to the one from here (`test_random_graphs.py`).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from floe_dagster.compilation.asset_index import build_asset_index
from floe_dagster.compilation.builder import build_artifacts
from floe_dagster.compilation.bundle import ARTIFACT, ASSET_INDEX, DBT_MANIFEST, REPORT, Bundle, write_bundle
from floe_dagster.compilation.documents import read_document
from floe_dagster.compilation.inheritance import load_manifest_chain
from floe_dagster.compilation.profiles import build_dbt_profiles
from floe_dagster.compilation.validation import parse_product
from floe_dagster.policies.places import DescriptionPlaces
from floe_dagster.schemas.product_index_json import index_to_json
from tests.graphs.dbt_rules import BUILT, FAILED, statuses
from tests.graphs.project import query
from tests.graphs.story import SOURCES, Node, Step, Story, Test

SAID = "Got 1 result, configured to fail if != 0"


def unique_id(name: str, story: Story) -> str:
    """Return dbt's unique id of a node, a source or a test."""
    if name in SOURCES:
        return f"source.shop.raw.{name}"
    node = story.by_name.get(name)
    if node is None:
        test = next(test for test in story.tests if test.name == name)
        if test.kind == "unit":
            return f"unit_test.{story.by_name[test.reads[0]].package}.{test.reads[0]}.{name}"
        return f"test.shop.{name}"
    kind = node.kind if node.kind in ("seed", "snapshot") else "model"
    version = "" if node.version is None else f".v{node.version}"
    return f"{kind}.{node.package}.{node.model}{version}"


def manifest_of(story: Story) -> dict[str, Any]:
    """Return what the index is made from, as dbt writes it into its manifest."""
    nodes = {unique_id(node.name, story): _node(node, story) for node in story.nodes}
    tests = {unique_id(test.name, story): _test(test, story) for test in story.tests}
    units = {key: test for key, test in tests.items() if test["resource_type"] == "unit_test"}
    return {
        "metadata": {"project_name": "shop"},
        "nodes": {**nodes, **{key: test for key, test in tests.items() if key not in units}},
        "unit_tests": units,
    }


def _node(node: Node, story: Story) -> dict[str, Any]:
    kind, package, *_rest = (key := unique_id(node.name, story)).split(".")
    is_incremental = node.is_stateful and node.kind != "snapshot"
    config: dict[str, Any] = {"materialized": "incremental" if is_incremental else node.kind}
    if node.is_stateful and node.kind != "append":
        config["unique_key"] = "key"
    floe = {} if node.publish is None else {"floe": {"publish": node.publish}}
    return {
        "unique_id": key,
        "resource_type": kind,
        "package_name": package,
        "name": node.model,
        "version": node.version,
        "fqn": [package, node.model, *([] if node.version is None else [f"v{node.version}"])],
        "database": "shop",
        "schema": "main",
        "alias": node.name,
        "depends_on": {"nodes": [unique_id(name, story) for name in node.reads]},
        "original_file_path": f"{kind}s/{node.name}.sql",
        "columns": {},
        "config": {**config, "meta": floe},
        "tags": [],
    }


def _test(test: Test, story: Story) -> dict[str, Any]:
    attached, of_source = test.kind in ("generic", "compared"), test.reads[0] in SOURCES
    model = f"{{{{ get_where_subquery(source('raw', '{test.reads[0]}')) }}}}" if of_source else ""
    floe = {"floe": {"withholds": list(test.withholds)}} if test.withholds else {}
    return {
        "resource_type": "unit_test" if test.kind == "unit" else "test",
        "package_name": "shop",
        "name": test.name,
        # dbt does not name a source there.
        "attached_node": unique_id(test.reads[0], story) if attached and not of_source else None,
        "test_metadata": {"name": "fails_when_told", "kwargs": {"model": model}} if attached else None,
        "depends_on": {"nodes": [unique_id(name, story) for name in test.reads]},
        "original_file_path": f"tests/{test.name}.sql",
        "config": {"severity": "WARN" if test.warns else "ERROR", "meta": floe},
    }


def bundle_of(story: Story, product: Path) -> Bundle:
    """Return what a compilation would make of a story, without dbt.

    Args:
        story: Its nodes and tests.
        product: A folder with `floe.yaml`, and a platform's manifest beside it.
    """
    manifest = manifest_of(story)
    spec = parse_product(read_document(product / "floe.yaml", root=product.parent))
    chain = load_manifest_chain(product.parent / "manifest.yaml", root=product.parent)
    assert spec.value is not None and chain.merged is not None
    artifact = build_artifacts(
        spec.value,
        chain,
        manifest,
        source_hash="sha256:" + "ab" * 32,
        dbt_profiles=build_dbt_profiles("shop", "duckdb", {}),
        compiled_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    places = DescriptionPlaces(lambda _path: None)
    index = build_asset_index(artifact, manifest, spec=spec.value, manifest=chain.merged, places=places)
    write_bundle(
        product.parent / "shop.zip",
        digest=artifact.metadata.source_hash,
        slug="shop",
        product_name="shop",
        documents={
            ARTIFACT: artifact.model_dump_json().encode(),
            ASSET_INDEX: index_to_json(index),
            DBT_MANIFEST: b"{}",
            REPORT: b"{}",
        },
        sources_root=product,
        sources=["dbt_project.yml"],
        project="shop",
    )
    return Bundle.open(product.parent / "shop.zip")


@dataclass
class StandIn:
    """Takes the place of `start_dbt`.

    Args:
        story: That is told.
        file: DuckDB's.
        step: That is run.
        fails: Names of what fails in it.
    """

    story: Story
    file: Path
    step: Step = field(default_factory=Step)
    fails: frozenset[str] = frozenset()

    def __call__(
        self, args: Sequence[str], env: Mapping[str, str], cwd: Path, state: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """See `StartDbt`."""
        names = {unique_id(name, self.story): name for name in self._names()}
        planned = Path(args[args.index("--state") + 1]) / "run_results.json"
        asked = {names[result["unique_id"]] for result in json.loads(planned.read_bytes())["results"]}
        given = statuses(self.story, asked, self.fails, self.step.silent)
        full_refresh = "--full-refresh" in args
        results, lines = [], []
        with duckdb.connect(str(self.file)) as con:
            for name, status in given.items():
                key = unique_id(name, self.story)
                lines.append({"info": _info("start"), "data": {"node_info": {"unique_id": key}}})
                message = SAID if status in ("fail", "warn") else status
                if len(lines) == self.step.killed:
                    break
                if name in self.story.by_name and status in (BUILT, FAILED):
                    try:
                        build(con, self.story.by_name[name], self.story, full_refresh=full_refresh)
                    except duckdb.Error as error:
                        assert status == FAILED, error
                        message = str(error)
                results.append({"unique_id": key, "status": status, "message": message})
        target = Path(env["DBT_TARGET_PATH"])
        target.mkdir(parents=True, exist_ok=True)
        (target / "run_results.json").write_text(json.dumps({"results": results}))
        said = target / "said"
        said.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return subprocess.Popen(["cat", str(said)], stdout=subprocess.PIPE, start_new_session=True)

    def _names(self) -> list[str]:
        return [*(node.name for node in self.story.nodes), *(test.name for test in self.story.tests)]


def _info(message: str) -> dict[str, str]:
    return {"name": "LogStartLine", "level": "info", "msg": message}


def build(con: duckdb.DuckDBPyConnection, node: Node, story: Story, *, full_refresh: bool) -> None:
    """Build one node as dbt-duckdb does, or leave everything as it was.

    Args:
        con: To the product's file.
        node: No ephemeral model.
        story: That it belongs to.
        full_refresh: Whether incremental models begin from nothing.

    Raises:
        duckdb.Error: It was told to fail.
    """
    if node.kind == "seed":
        con.execute(f"create or replace table main.{node.name} as select '{node.name}' as key, 0 as seen")
        return
    select = query(node, story, _relations(story))
    place = f"main.{node.name}"
    stands = con.execute(
        "select 1 from information_schema.tables where table_schema = 'main' and table_name = ?", [node.name]
    ).fetchall()
    _MATERIALIZED.get(node.kind, _increment)(con, place, select, bool(stands), full_refresh)


def _relations(story: Story) -> Callable[[str], str]:
    def refer(name: str) -> str:
        node = story.by_name.get(name)
        if node is None or node.kind != "ephemeral":
            return f"main.{name}"
        return f"({query(node, story, refer)})"

    return refer


def _table(
    con: duckdb.DuckDBPyConnection, place: str, select: str, _stands: bool, _full_refresh: bool
) -> None:
    con.execute(f"create or replace table {place} as {select}")


def _view(
    con: duckdb.DuckDBPyConnection, place: str, select: str, _stands: bool, _full_refresh: bool
) -> None:
    con.execute(f"create or replace view {place} as {select}")


def _increment(
    con: duckdb.DuckDBPyConnection, place: str, select: str, stands: bool, full_refresh: bool
) -> None:
    if not stands or full_refresh:
        con.execute(f"create or replace table {place} as {select}")
        return
    con.execute(
        f"insert into {place} select * from ({select}) as found where key not in (select key from {place})"
    )


def _snapshot(
    con: duckdb.DuckDBPyConnection, place: str, select: str, stands: bool, _full_refresh: bool
) -> None:
    new = (
        "select key, seen, md5(key || '|' || seen || '|' || now()) as dbt_scd_id, now()::timestamp as dbt_updated_at, "
        f"now()::timestamp as dbt_valid_from, null::timestamp as dbt_valid_to from ({select}) as found"
    )
    if not stands:
        con.execute(f"create table {place} as {new}")
        return
    con.execute("begin")
    try:
        con.execute(f"create temp table changed as {new} where not exists (select 1 from {place} as held where "
                    "held.dbt_valid_to is null and held.key = found.key and held.seen = found.seen)")  # fmt: skip
        con.execute(
            f"update {place} set dbt_valid_to = now()::timestamp where dbt_valid_to is null and key in (select key from changed)"
        )
        con.execute(f"insert into {place} select * from changed")
        con.execute("drop table changed")
    except duckdb.Error:
        con.execute("rollback")
        raise
    con.execute("commit")


_MATERIALIZED = {"table": _table, "view": _view, "snapshot": _snapshot}
