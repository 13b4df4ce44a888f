"""`floe-dagster diff` says what another engine, or other settings of it, mean before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from floe_dagster.cli import main

pytestmark = pytest.mark.slow

REST = "{type: rest, config: {uri: 'http://nowhere.invalid', warehouse: w}}"
PLUGINS = """\
plugins:
  compute: {compute}
  catalog: {catalog}
  storage: {{type: s3, config: {{bucket: b}}}}
"""
DUCKDB = "{type: duckdb, config: {threads: 2}}"
TRINO = (
    "{type: trino, config: {host: trino.invalid, port: 8443, http_scheme: https, catalog: lake, user: etl, "
    "password: {env: TRINO_PASSWORD}}}"
)

Said = dict[str, list[tuple[list[str], str]]]


@pytest.fixture
def product(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One model of each kind."""
    monkeypatch.setenv("FLOE_HOME", str(tmp_path / "home"))
    models = shop / "models"
    (models / "recent.sql").write_text(
        "{{ config(materialized='view') }}\nselect * from {{ ref('orders') }}\n"
    )
    (models / "board.sql").write_text(
        "{{ config(materialized='view', meta={'floe': {'publish': true}}) }}\nselect * from {{ ref('recent') }}\n"
    )
    (models / "growing.sql").write_text(
        "{{ config(materialized='incremental') }}\nselect * from {{ ref('orders') }}\n"
    )
    (models / "kept.sql").write_text(
        "{{ config(materialized='incremental', meta={'floe': {'publish': false}}) }}\nselect * from {{ ref('orders') }}\n"
    )
    with (shop / "floe.yaml").open("a") as file:
        file.write("transforms:\n- {name: daily, table: {write_mode: append}}\n")
    return shop


@pytest.fixture
def diff(product: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    original = (product.parent / "manifest.yaml").read_text()

    def change(
        before: str,
        after: str,
        *,
        catalogs: tuple[str, str] = (REST, REST),
        transforms: tuple[str, str] = ("", ""),
    ) -> Said:
        """Compile on one engine, then compare with another: what it means, by topic."""
        manifest, floe_yaml = product.parent / "manifest.yaml", product / "floe.yaml"
        spec = floe_yaml.read_text()
        floe_yaml.write_text(spec + transforms[0])
        manifest.write_text(original + PLUGINS.format(compute=before, catalog=catalogs[0]))
        assert main(["compile", str(product)]) == 0
        manifest.write_text(original + PLUGINS.format(compute=after, catalog=catalogs[1]))
        floe_yaml.write_text(spec + transforms[1])
        capsys.readouterr()
        assert main(["diff", str(product), "--format", "json"]) == 0
        (report,) = json.loads(capsys.readouterr().out)
        said: Said = {}
        for each in report["engine"]:
            said.setdefault(each["topic"], []).append((each["names"], each["text"]))
        return said

    return change


def about(said: Said, topic: str, name: str) -> str:
    """What is said of one model under one topic."""
    return " ".join(text for names, text in said[topic] if name in names)


def in_general(said: Said, topic: str) -> str:
    return " ".join(text for names, text in said[topic] if not names)


def test_from_duckdb_to_trino(
    diff: Callable[..., Any], product: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = diff(DUCKDB, TRINO)
    ((names, moved),) = said["models"]
    assert names == ["board", "daily", "growing", "kept", "orders", "recent"]
    assert "lake.floe_audit_shop" in moved and "FLOE_HOME/duckdb/shop.duckdb" in moved
    assert said["tables"][0][0] == ["board", "daily", "growing", "orders"]
    assert "stay where they are published, in shop" in said["tables"][0][1]
    assert "published as tables" in about(said, "views", "board")
    assert "views in lake.floe_audit_shop" in about(said, "views", "recent")
    assert "one more statement" in about(said, "rows", "daily")
    assert "a clone of the published table" in about(said, "state", "growing")
    assert "begin anew" in about(said, "state", "kept")
    assert "FLOE_HOME/duckdb/shop.duckdb has the only copy" in about(said, "state", "kept")
    assert "can be removed" not in str(said)
    assert "found at publication" in in_general(said, "types")
    needed = in_general(said, "before")
    for part in ("floe-dagster[trino]", "iceberg.catalog.type=rest", "floe_audit_shop", "TRINO_PASSWORD"):
        assert part in needed
    assert "platform check --namespace shop" in needed
    assert main(["diff", str(product)]) == 0
    text = capsys.readouterr().out
    assert "What the change of engine means" in text
    assert "plugins.compute.type" in text and "TRINO_PASSWORD" in text


def test_and_back(diff: Callable[..., Any]) -> None:
    said = diff(TRINO, DUCKDB)
    assert "the rows of the published table" in about(said, "state", "growing")
    assert "stays in lake.floe_audit_shop" in about(said, "state", "kept")
    assert "never by DROP in Trino" in in_general(said, "state")
    assert "memory" in in_general(said, "before") and "floe-dagster[trino]" not in in_general(said, "before")
    assert "rows" not in said


BOTH = f"{DUCKDB}\n  additional_compute: [{TRINO}]"
ORDERS_ON_TRINO = "- {name: orders, compute: trino}\n- {name: growing, compute: trino}\n"


def test_a_transform_that_moves_alone(diff: Callable[..., Any]) -> None:
    said = diff(BOTH, BOTH, transforms=("", ORDERS_ON_TRINO))
    ((names, moved),) = said["models"]
    assert names == ["growing", "orders"] and "lake.floe_audit_shop" in moved
    assert said["tables"][0][0] == ["growing", "orders"]
    assert "a clone of the published table" in about(said, "state", "growing")
    # DuckDB goes on with the others.
    assert "can be removed" not in str(said) and "settings" not in said
    needed = in_general(said, "before")
    assert "floe-dagster[trino]" in needed and "TRINO_PASSWORD" in needed and "floe_audit_shop" in needed


def test_a_transform_that_comes_back_leaves_the_engine_without_work(diff: Callable[..., Any]) -> None:
    said = diff(BOTH, BOTH, transforms=(ORDERS_ON_TRINO, ""))
    ((names, _),) = said["models"]
    assert names == ["growing", "orders"]
    assert "stays in lake.floe_audit_shop" in in_general(said, "state")
    assert "memory" in in_general(said, "before")


def test_models_that_name_their_engine_stay_when_the_default_changes(diff: Callable[..., Any]) -> None:
    other = f"{TRINO}\n  additional_compute: [{DUCKDB}]"
    said = diff(BOTH, other, transforms=(ORDERS_ON_TRINO, ORDERS_ON_TRINO))
    ((names, _),) = said["models"]
    assert names == ["board", "daily", "kept", "recent"]
    # Trino was there before: nothing is needed that was not.
    assert "before" not in said and "has the only copy" in about(said, "state", "kept")


def test_a_duckdb_file_can_be_removed_where_it_holds_no_state(
    diff: Callable[..., Any], product: Path
) -> None:
    (product / "models" / "kept.sql").unlink()
    said = diff(DUCKDB, TRINO)
    assert "FLOE_HOME/duckdb/shop.duckdb was a cache" in in_general(said, "state")
    assert "can be removed" in in_general(said, "state") and "only copy" not in str(said)


def test_a_duckdb_file_holds_what_an_unpublished_snapshot_has_seen(
    diff: Callable[..., Any], product: Path
) -> None:
    (product / "models" / "kept.sql").unlink()
    (product / "snapshots").mkdir()
    (product / "snapshots" / "seen.sql").write_text(
        "{% snapshot seen %}{{ config(unique_key='id', strategy='check', check_cols='all', "
        "meta={'floe': {'publish': false}}) }}select * from {{ ref('orders') }}{% endsnapshot %}\n"
    )
    said = diff(DUCKDB, TRINO)
    assert "has the only copy" in about(said, "state", "seen") and "can be removed" not in str(said)


def test_settings_of_a_further_engine(diff: Callable[..., Any]) -> None:
    said = diff(BOTH, BOTH.replace("user: etl", "user: other"), transforms=(ORDERS_ON_TRINO, ORDERS_ON_TRINO))
    assert set(said) == {"settings"}
    assert "plugins.additional_compute (trino).config.user" in in_general(said, "settings")


def test_a_further_engine_that_no_model_names_is_nothing(diff: Callable[..., Any]) -> None:
    assert diff(DUCKDB, BOTH) == {}


def test_with_another_catalog_nothing_that_is_published_is_extended(diff: Callable[..., Any]) -> None:
    said = diff(DUCKDB, TRINO, catalogs=("{type: sql}", REST))
    assert "published anew" in about(said, "tables", "orders")
    assert not any("growing" in names for names, _ in said["state"])


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [
        (DUCKDB, "{type: duckdb, config: {threads: 8, memory_limit: 4GB}}", "config.memory_limit"),
        (TRINO, TRINO.replace("user: etl", "user: other"), "config.user"),
    ],
)
def test_settings_that_move_nothing(diff: Callable[..., Any], before: str, after: str, place: str) -> None:
    said = diff(before, after)
    assert set(said) == {"settings"}
    assert f"plugins.compute.{place}" in in_general(said, "settings")
    assert "no model moves" in in_general(said, "settings") and "platform check" not in str(said)


def test_another_coordinator_has_to_have_the_same_catalog(diff: Callable[..., Any]) -> None:
    said = diff(TRINO, TRINO.replace("trino.invalid", "other.invalid"))
    assert "Its catalog lake has to be that of plugins.catalog there, too" in in_general(said, "settings")
    assert "platform check --namespace shop" in in_general(said, "settings")


def test_another_duckdb_file(diff: Callable[..., Any]) -> None:
    said = diff(DUCKDB, "{type: duckdb, config: {threads: 2, path: other.duckdb}}")
    ((_, moved),) = said["models"]
    assert "FLOE_HOME/duckdb/other.duckdb" in moved and "plugins.compute.config.path" in moved
    assert "begin anew" in about(said, "state", "kept")
    assert "FLOE_HOME/duckdb/shop.duckdb has the only copy" in about(said, "state", "kept")
    assert "the rows of the published table" in about(said, "state", "growing")


def test_the_same_engine_says_nothing(diff: Callable[..., Any]) -> None:
    assert diff(DUCKDB, DUCKDB) == {}


def test_declared_types_are_compared_with_the_published_tables(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def declared(**types: str) -> None:
        columns = ", ".join(f"{{name: {name}, data_type: '{kind}'}}" for name, kind in types.items())
        (shop / "models" / "schema.yml").write_text(f"models:\n- {{name: orders, columns: [{columns}]}}\n")

    monkeypatch.setenv("FLOE_HOME", str(tmp_path / "home"))
    (shop / "models" / "orders.sql").write_text(
        "select 1 as id, 'paid' as status, cast(1 as hugeint) as amount, current_date as day\n"
    )
    assert main(["run", str(shop)]) == 0
    # A wider integer and what the table has are fine.
    declared(id="bigint", status="varchar", amount="decimal(38,0)", day="date")
    capsys.readouterr()
    assert main(["diff", str(shop), "--published"]) == 0
    assert "Every type that is declared fits" in capsys.readouterr().out
    declared(id="varchar", status="varchar", amount="bigint", day="timestamp", new="bigint")
    assert main(["diff", str(shop), "--published", "--format", "json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["types"] == [
        {"table": "orders", "column": "id", "published": "int", "declared": "varchar"},
        {"table": "orders", "column": "amount", "published": "decimal(38, 0)", "declared": "bigint"},
        {"table": "orders", "column": "day", "published": "date", "declared": "timestamp"},
    ]
    assert main(["diff", str(shop), "--published"]) == 0
    assert "Types that Iceberg cannot change to" in capsys.readouterr().out


def test_a_catalog_that_is_away_is_named(
    product: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with (product.parent / "manifest.yaml").open("a") as file:
        away = "{type: rest, config: {uri: 'http://127.0.0.1:9', warehouse: w}}"
        file.write(PLUGINS.format(compute=DUCKDB, catalog=away))
    (product / "models" / "schema.yml").write_text(
        "models:\n- {name: orders, columns: [{name: id, data_type: integer}]}\n"
    )
    assert main(["diff", str(product), "--published", "--format", "json"]) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert "http://127.0.0.1:9" in report["error"] and "nothing listens there" in report["error"]
