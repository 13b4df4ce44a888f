"""Runs of a product whose models are built by DuckDB and by Trino, each reading what the other has published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from tests.jobs import execute_job, reconstructable_shop_job
from tests.trino.shops import Shop, metadata, said

TRANSFORMS = """\
transforms:
  - name: orders
  - name: heavy
    compute: trino
  - name: totals
    compute: trino
  - name: mart
  - name: share
    compute: trino
  - name: aside
"""
MODELS = {
    "orders": "select id, name, cast({{ var('factor', 1) }} * amount as bigint) as amount from {{ ref('raw_orders') }}\n",
    # Only Trino knows approx_distinct.
    "heavy": (
        "select id % 2 as part, cast(sum(amount) as bigint) as amount, cast(approx_distinct(id) as bigint) as ids\n"
        "from {{ ref('orders') }} group by 1\n"
    ),
    "totals": (
        "{{ config(materialized='incremental', unique_key='id') }}\n"
        "select id, amount, {{ var('factor', 1) }} as factor from {{ ref('orders') }}\n"
        "{% if is_incremental() %} where id > 3 {% endif %}\n"
    ),
    # Only DuckDB begins with FROM.
    "mart": (
        "from {{ ref('heavy') }} join {{ ref('small') }} using (part)\n"
        "select part, heavy.amount, small.n where 1 = {{ env_var('FLOE_TEST_ONE', '1') }}\n"
    ),
    "small": (
        "{{ config(materialized='view') }}\n"
        "from {{ ref('orders') }} select id % 2 as part, count(*) as n group by all\n"
    ),
    "share": "select part, cast(amount as double) / n as share from {{ ref('mart') }}\n",
    "aside": "select cast(count(*) as bigint) as n from {{ ref('orders') }}\n",
}
TESTS = {
    "not_too_heavy": "select part from {{ ref('heavy') }} where amount > {{ var('most', 1000000) }}\n",
    "sums_agree": (
        "{{ config(meta={'floe': {'withholds': ['heavy']}}) }}\n"
        "select 1 as wrong from (select sum(amount) as n from {{ ref('orders') }}) as a\n"
        "join (select sum(amount) as n from {{ ref('heavy') }}) as b on a.n <> b.n + {{ var('off', 0) }}\n"
    ),
}
COLUMNS = """\
models:
  - name: orders
    columns: [{name: id, data_tests: [unique]}]
  - name: mart
    columns:
      - name: part
        data_tests:
          - unique
          - relationships: {arguments: {to: ref('heavy'), field: part}}
"""
EVERYTHING = {"raw_orders", "orders", "small", "heavy", "totals", "mart", "share", "aside"}


@pytest.fixture
def on_both(cluster: Any, make_shop: Callable[..., Shop], tmp_path: Path) -> Shop:
    """The product with DuckDB as its default engine."""
    shop = make_shop(cluster)
    exchange(tmp_path, "duckdb")
    spec = shop.product / "floe.yaml"
    spec.write_text(spec.read_text().partition("transforms:")[0] + TRANSFORMS)
    for folder, files in ((shop.product / "models", MODELS), (shop.product / "tests", TESTS)):
        for file in folder.iterdir():
            file.unlink()
        for name, sql in files.items():
            (folder / f"{name}.sql").write_text(sql)
    (shop.product / "models" / "schema.yml").write_text(COLUMNS)
    return shop


def exchange(folder: Path, default: str) -> None:
    """Make one engine of the platform the default, and the other the further one."""
    path = folder / "manifest.yaml"
    manifest = yaml.safe_load(path.read_text())
    plugins = manifest["plugins"]
    known = {each["type"]: each for each in (plugins["compute"], *plugins.get("additional_compute", ()))}
    known.setdefault("duckdb", {"type": "duckdb"})
    plugins["compute"] = known.pop(default)
    plugins["additional_compute"] = list(known.values())
    path.write_text(yaml.safe_dump(manifest, sort_keys=False))


def checks(outcome: Any) -> dict[str, bool]:
    """Return what each check found, by its name."""
    return {result.check_name: result.passed for result in outcome.get_asset_check_evaluations()}


def snapshots(shop: Shop) -> dict[str, int]:
    return {
        name: len(shop.catalog.load_table(("shop", name)).metadata.snapshots)
        for _namespace, name in shop.catalog.list_tables("shop")
    }


@pytest.mark.core
def test_each_engine_reads_what_the_other_has_published(on_both: Shop) -> None:
    first = on_both.run()
    assert first.success, said(first)
    shown = metadata(first)
    assert set(shown) == EVERYTHING
    assert on_both.rows("heavy") == [
        {"part": 0, "amount": 120, "ids": 3},
        {"part": 1, "amount": 90, "ids": 3},
    ]
    assert on_both.rows("mart") == [{"part": 0, "amount": 120, "n": 3}, {"part": 1, "amount": 90, "n": 3}]
    assert on_both.rows("share") == [{"part": 0, "share": 40.0}, {"part": 1, "share": 30.0}]
    assert on_both.clones() == []
    assert {name for name, of in shown.items() if "trino/query_id" in of} == {"heavy", "totals", "share"}
    assert checks(first) == {
        "unique_orders_id": True,
        "unique_mart_part": True,
        "relationships_mart_part__part__ref_heavy_": True,
        "not_too_heavy": True,
        "sums_agree": True,
    }
    lineage = shown["mart"]["dagster/column_lineage"].deps_by_column
    assert [(dep.asset_key.path[-1], dep.column_name) for dep in lineage["amount"]] == [("heavy", "amount")]
    for name, engine in (("heavy", "trino"), ("mart", "duckdb")):
        snapshot = on_both.catalog.load_table(("shop", name)).current_snapshot()
        assert snapshot is not None and snapshot.summary is not None
        assert snapshot.summary["floe.engine"] == engine

    second = on_both.run(config={"vars": {"factor": 2}})
    assert second.success, said(second)
    assert on_both.rows("mart") == [{"part": 0, "amount": 240, "n": 3}, {"part": 1, "amount": 180, "n": 3}]
    assert {row["id"]: row["factor"] for row in on_both.rows("totals")} == {
        1: 1,
        2: 1,
        3: 1,
        4: 2,
        5: 2,
        6: 2,
    }


def test_what_fails_its_test_on_one_engine_is_not_read_by_the_other(on_both: Shop) -> None:
    refused = on_both.run(config={"vars": {"most": 0}})
    assert not refused.success
    assert "- heavy: test not_too_heavy failed" in said(refused)
    assert "- mart: it reads heavy, which was withheld" in said(refused)
    # What does not read it goes on, on both engines.
    assert set(snapshots(on_both)) == {"orders", "aside", "totals"}
    assert set(metadata(refused)) == EVERYTHING - {"heavy", "mart", "share"}
    assert on_both.run().success
    before = snapshots(on_both)
    refused = on_both.run(config={"vars": {"off": 1, "factor": 3}})
    # A test of both, which names what it withholds, runs with the later of them.
    assert not refused.success and "- heavy: test sums_agree failed" in said(refused)
    assert "- orders" not in said(refused)
    after = snapshots(on_both)
    assert {name for name in before if before[name] != after[name]} == {"orders", "aside"}
    assert on_both.clones() == []


def test_one_model_reads_what_is_published(on_both: Shop) -> None:
    lonely = on_both.run("mart")
    assert not lonely.success
    assert "- mart: it reads heavy, which trino has not published yet: run that, too" in said(lonely)
    assert on_both.run().success
    before = snapshots(on_both)
    for name in ("heavy", "mart"):
        outcome = on_both.run(name, config={"vars": {"factor": 5}})
        assert outcome.success, said(outcome)
        assert set(metadata(outcome)) == {name}
        before[name] += 1
    assert snapshots(on_both) == before
    assert on_both.rows("mart") == [{"part": 0, "amount": 120, "n": 3}, {"part": 1, "amount": 90, "n": 3}]


def test_a_file_of_duckdb_that_is_lost_is_made_again(on_both: Shop) -> None:
    assert on_both.run().success
    for file in on_both.home.duckdb_dir.iterdir():
        file.unlink()
    outcome = on_both.run("mart")
    assert outcome.success, said(outcome)
    assert on_both.rows("mart") == [{"part": 0, "amount": 120, "n": 3}, {"part": 1, "amount": 90, "n": 3}]


def test_a_model_moves_from_one_engine_to_the_other(on_both: Shop) -> None:
    models = on_both.product / "models"
    (models / "heavy.sql").write_text(MODELS["heavy"].replace("approx_distinct(id)", "count(distinct id)"))
    spec = on_both.product / "floe.yaml"
    on_trino = spec.read_text()
    for number, text in enumerate(
        (on_trino.replace("    compute: trino\n", ""), on_trino, on_trino.replace("    compute: trino\n", ""))
    ):
        spec.write_text(text)
        outcome = on_both.run(config={"vars": {"factor": number + 1}})
        assert outcome.success, said(outcome)
        assert on_both.rows("mart")[0] == {"part": 0, "amount": 120 * (number + 1), "n": 3}
        assert on_both.rows("share")[0] == {"part": 0, "share": 40.0 * (number + 1)}


def test_the_other_way_round(on_both: Shop, tmp_path: Path) -> None:
    exchange(tmp_path, "trino")
    spec = on_both.product / "floe.yaml"
    text = spec.read_text().replace("    compute: trino\n", "")
    spec.write_text(text.replace("- name: mart\n", "- name: mart\n    compute: duckdb\n"))
    models = on_both.product / "models"
    (models / "small.sql").write_text(
        "select id % 2 as part, cast(count(*) as bigint) as n from {{ ref('orders') }} group by 1\n"
    )
    outcome = on_both.run()
    assert outcome.success, said(outcome)
    assert on_both.rows("mart") == [{"part": 0, "amount": 120, "n": 3}, {"part": 1, "amount": 90, "n": 3}]
    assert on_both.rows("share") == [{"part": 0, "share": 40.0}, {"part": 1, "share": 30.0}]
    assert "trino/query_id" not in metadata(outcome)["mart"]
    assert on_both.clones() == []


def test_a_run_that_goes_on_builds_what_is_missing(on_both: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOE_TEST_ONE", "one")
    config = {"execution": {"config": {"in_process": {}}}}
    job = reconstructable_shop_job(on_both.product, on_both.home)
    with execute_job(job, instance=on_both.instance, run_config=config) as first:
        assert not first.success
    before = snapshots(on_both)
    assert set(before) == {"orders", "aside", "heavy", "totals"}
    monkeypatch.setenv("FLOE_TEST_ONE", "1")
    options = dg.ReexecutionOptions.from_failure(first.run_id, on_both.instance)
    with execute_job(
        job, instance=on_both.instance, run_config=config, reexecution_options=options
    ) as second:
        assert second.success
        assert {"mart", "share"} <= set(metadata(second)) <= {"mart", "share", "small", "raw_orders"}
        assert checks(second)["sums_agree"] and checks(second)["relationships_mart_part__part__ref_heavy_"]
    after = snapshots(on_both)
    assert before.items() <= after.items() and set(after) == EVERYTHING - {"raw_orders", "small"}
