"""Relations whose next content depends on their last one, through failures: what did not pass is never built upon."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.batches import BATCHES_UNTIL
from floe_dagster.iceberg.catalogs import open_catalog

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
MARKED = "data_tests: [{accepted_values: {arguments: {values: ['good']}}}]"


def day(days: int) -> str:
    return f"timestamp '{NOW - timedelta(days=days):%Y-%m-%d} 06:00:00'"


def increments(strategy: str, **config: str) -> str:
    """Return an incremental model that takes the rows which it has not got yet, as they are."""
    stated = "".join(f", {name}={value}" for name, value in config.items())
    return (
        f"{{{{ config(materialized='incremental', incremental_strategy='{strategy}'{stated}) }}}} "
        "select id, status from {{ ref('source') }} "
        "{% if is_incremental() %} where id > (select coalesce(max(id), -1) from {{ this }}) {% endif %}"
    )


MODELS = {
    "appended": increments("append"),
    "merged": increments("merge", unique_key="'id'"),
    "replaced": increments("delete+insert", unique_key="'id'"),
    "hidden": increments("append", meta="{'floe': {'publish': false}}"),
    "reader": "select id, status from {{ ref('hidden') }}",
    "micro": (
        "{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='seen', batch_size='day', "
        f"begin='{NOW - timedelta(days=6):%Y-%m-%d}', lookback=0) }}}} select id, seen, amount::int as amount from {{{{ ref('source') }}}}"
    ),
}
TESTED = ("appended", "merged", "replaced", "hidden")
SNAPSHOT = """\
snapshots:
  - name: history
    relation: ref('source')
    config: {strategy: check, unique_key: id, check_cols: [status]}
    columns: [{name: status, TESTS}]
"""


class Shop:
    """The product, with rows of a source that a test writes."""

    def __init__(self, folder: Path, home: FloeHome, instance: dg.DagsterInstance) -> None:
        self.folder, self.home, self.instance = folder, home, instance
        for model in (folder / "models").iterdir():
            model.unlink()
        for name, sql in MODELS.items():
            (folder / "models" / f"{name}.sql").write_text(sql + "\n")
        tests = "\n".join(f"  - name: {name}\n    columns: [{{name: status, {MARKED}}}]" for name in TESTED)
        (folder / "models" / "tests.yml").write_text(f"models:\n{tests}\n")
        (folder / "snapshots").mkdir()
        (folder / "snapshots" / "history.yml").write_text(SNAPSHOT.replace("TESTS", MARKED))

    def run(self, *rows: tuple[int, int, str, str], fails: bool = False) -> set[str]:
        """Run with rows of id, age in days, status and amount; returns the names of the published tables."""
        values = ", ".join(
            f"({key}, {day(age)}, '{status}', '{amount}')" for key, age, status, amount in rows
        )
        (self.folder / "models" / "source.sql").write_text(
            f"{{{{ config(event_time='seen') }}}} select * from (values {values}) v(id, seen, status, amount)\n"
        )
        result = compile_product(self.folder, home=self.home)
        assert result.bundle is not None, result.findings
        definitions = build_product_definitions(result.bundle, product_dir=self.folder, home=self.home)
        outcome = definitions.resolve_job_def("shop_run").execute_in_process(
            instance=self.instance, raise_on_error=False
        )
        assert outcome.success is not fails
        return {event.asset_key.path[-1] for event in outcome.asset_materializations_for_node("shop_dbt")}

    def rows(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        found = self.table(table).scan(selected_fields=columns).to_arrow().to_pylist()
        return sorted(tuple(row[name] for name in columns) for row in found)

    def table(self, name: str) -> Any:
        return open_catalog(None, None, home=self.home).load_table(f"shop.{name}")


@pytest.fixture
def product(shop: Path, home: FloeHome, instance: dg.DagsterInstance) -> Shop:
    return Shop(shop, home, instance)


def test_what_did_not_pass_is_never_built_upon(product: Shop) -> None:
    stateful = {*TESTED, "history", "micro"}
    # The first run of each fails: rows that fail their test, and one batch of five.
    first = product.run((1, 5, "bad", "1"), (2, 4, "good", "oops"), (3, 3, "good", "3"), fails=True)
    assert first.isdisjoint({*stateful, "reader"}) and "source" in first
    # Each begins anew.
    good = [(1, 5, "good", "1"), (2, 4, "good", "2"), (3, 3, "good", "3")]
    assert product.run(*good) >= {*stateful, "reader"}
    whole = [(key, status) for key, _age, status, _amount in good]
    for name in ("appended", "merged", "replaced", "reader", "history"):
        assert product.rows(name, "id", "status") == whole, name
    assert product.rows("micro", "id", "amount") == [(1, 1), (2, 2), (3, 3)]
    # A later run fails in the middle: what is published stands, with what was not published itself.
    (product.folder / "models" / "micro.sql").write_text(MODELS["micro"].replace("lookback=0", "lookback=6"))
    failed = product.run(*good, (4, 2, "bad", "oops"), (5, 0, "good", "5"), fails=True)
    assert failed.isdisjoint({*stateful, "reader"})
    for name in ("appended", "merged", "replaced", "reader", "history"):
        assert product.rows(name, "id", "status") == whole, name
    assert product.rows("micro", "id", "amount") == [(1, 1), (2, 2), (3, 3)]
    # The next one goes on from what is published. What it had of batches ended three days ago, as if no run had passed since.
    (product.folder / "models" / "micro.sql").write_text(MODELS["micro"])
    ended = (NOW - timedelta(days=2)).replace(tzinfo=UTC)
    with (
        product.table("micro").transaction() as transaction,
        transaction.update_snapshot(snapshot_properties={BATCHES_UNTIL: ended.isoformat()}).fast_append(),
    ):
        pass
    more = [*good, (4, 2, "good", "4"), (5, 0, "good", "5")]
    assert product.run(*more) >= {*stateful, "reader"}
    whole = [(key, status) for key, _age, status, _amount in more]
    for name in ("appended", "merged", "replaced", "reader", "history"):
        assert product.rows(name, "id", "status") == whole, name
    assert product.rows("micro", "id", "amount") == [(key, key) for key in range(1, 6)]
    summary = product.table("micro").current_snapshot().summary
    assert summary[BATCHES_UNTIL] > ended.isoformat()


def test_a_table_whose_files_are_gone_takes_no_other_along(product: Shop) -> None:
    good = (1, 5, "good", "1")
    product.run(good)
    lost = product.table("appended")
    Path(lost.metadata_location.removeprefix("file://")).unlink()
    # Without the DuckDB file there is nothing else that holds its rows.
    for file in product.home.duckdb_dir.iterdir():
        file.unlink()
    published = product.run(good, (2, 4, "good", "2"), fails=True)
    assert "appended" not in published
    assert {"merged", "replaced", "history", "micro", "reader", "source"} <= published
