"""What the compiled dbt project gets for Trino."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from floe_dagster.compilation.overlay import apply_overlay
from floe_dagster.schemas.compute.trino_project import table_properties
from floe_dagster.schemas.product import ProductSpec


@pytest.mark.parametrize(
    ("partition_by", "sort_by", "expected"),
    [
        (["region"], None, {"partitioning": "ARRAY['\"region\"']"}),
        (["day(At)", "bucket(16, id)"], None, {"partitioning": "ARRAY['day(\"at\")', 'bucket(\"id\", 16)']"}),
        (None, ["at desc", "id"], {"sorted_by": "ARRAY['\"at\" DESC NULLS LAST', '\"id\" ASC NULLS FIRST']"}),
        (['"it\'s"'], None, {"partitioning": "ARRAY['\"it''s\"']"}),
        (None, None, {}),
    ],
)
def test_layouts_as_trino_writes_them(
    partition_by: list[str] | None, sort_by: list[str] | None, expected: dict[str, str]
) -> None:
    assert table_properties(partition_by, sort_by) == expected


def spec() -> ProductSpec:
    return ProductSpec.model_validate(
        {
            "apiVersion": "floe.dev/v1",
            "kind": "FloeSpec",
            "metadata": {"name": "shop", "version": "1.0.0", "owner": "shop@example.com"},
            "platform": {"manifest": "m.yaml"},
            "transforms": [{"name": "orders", "table": {"partition_by": ["day(at)"]}}, {"name": "daily"}],
        }
    )


def test_what_the_project_says_itself_wins(tmp_path: Path) -> None:
    project = {"name": "shop", "models": {"+on_table_exists": "drop", "shop": {"+materialized": "table"}}}
    (tmp_path / "dbt_project.yml").write_text(yaml.safe_dump(project))
    apply_overlay(tmp_path, "trino", spec(), "shop")
    found = yaml.safe_load((tmp_path / "dbt_project.yml").read_text())
    assert found["models"] == {"+on_table_exists": "drop", "shop": {"+materialized": "table"}}
    assert found["macro-paths"] == ["macros", "floe_macros"]
    assert "day(" in (tmp_path / "floe_macros" / "trino.sql").read_text()


def test_macros_are_looked_for_in_the_project_before_its_packages(tmp_path: Path) -> None:
    project = {
        "name": "shop",
        "dispatch": [
            {"macro_namespace": "dbt", "search_order": ["helpers", "dbt"]},
            {"macro_namespace": "dbt_utils", "search_order": ["helpers", "dbt_utils"]},
        ],
    }
    (tmp_path / "dbt_project.yml").write_text(yaml.safe_dump(project))
    assert apply_overlay(tmp_path, "trino", spec(), "shop") == []
    found = yaml.safe_load((tmp_path / "dbt_project.yml").read_text())
    assert found["dispatch"][0]["search_order"] == ["shop", "helpers", "dbt"]
    assert found["dispatch"][1] == project["dispatch"][1]


def test_a_macro_that_would_be_asked_in_place_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dbt_project.yml").write_text(yaml.safe_dump({"name": "shop"}))
    (tmp_path / "macros" / "folder.sql").mkdir(parents=True)
    (tmp_path / "macros" / "drop.sql").write_text("{% macro drop_relation(relation) %}drop{% endmacro %}\n")
    (finding,) = apply_overlay(tmp_path, "trino", spec(), "shop")
    assert (finding.code, finding.found, finding.file) == (
        "reserved-macro",
        "drop_relation",
        "shop/macros/drop.sql",
    )
    assert not (tmp_path / "floe_macros").exists()


def written(project_dir: Path, name: str, project: dict[str, Any], *files: str) -> None:
    (project_dir / name).mkdir(parents=True, exist_ok=True)
    (project_dir / name / "dbt_project.yml").write_text(yaml.safe_dump(project))
    for file in files:
        (project_dir / name / file).parent.mkdir(parents=True, exist_ok=True)
        (project_dir / name / file).write_text("id\n1\n")


def seeds_of(project_dir: Path) -> Any:
    apply_overlay(project_dir, "trino", spec(), "shop")
    return yaml.safe_load((project_dir / "dbt_project.yml").read_text()).get("seeds")


@pytest.mark.parametrize(
    ("project", "files"),
    [
        ({}, ["seeds/deep/er/a.csv"]),
        ({"seed-paths": ["data"]}, ["data/A.CSV"]),
        ({"seed-paths": ["{{ env_var('SEEDS') }}"]}, []),
        ({"packages-install-path": "{{ env_var('PACKAGES') }}"}, []),
    ],
)
def test_seeds_are_told_what_to_do_where_there_are_any(
    tmp_path: Path, project: dict[str, Any], files: list[str]
) -> None:
    written(tmp_path, ".", {"name": "shop", "seeds": {"shop": {"+quote_columns": True}}, **project}, *files)
    assert seeds_of(tmp_path) == {"+on_table_exists": "replace", "shop": {"+quote_columns": True}}


def test_seeds_of_a_package_count(tmp_path: Path) -> None:
    written(tmp_path, ".", {"name": "shop"}, "seeds/read.me", "data/a.csv")
    written(tmp_path, "dbt_packages/other", {"name": "other"}, "models/a.csv")
    assert seeds_of(tmp_path) is None
    written(tmp_path, "elsewhere", {"name": "other", "seed-paths": ["data"]}, "data/a.csv")
    shutil.rmtree(tmp_path / "dbt_packages" / "other")
    # How dbt installs a local package.
    (tmp_path / "dbt_packages" / "other").symlink_to(tmp_path / "elsewhere")
    assert seeds_of(tmp_path) == {"+on_table_exists": "replace"}


def test_duckdb_needs_nothing(tmp_path: Path) -> None:
    (tmp_path / "dbt_project.yml").write_text("name: shop  # as it is\n")
    apply_overlay(tmp_path, "duckdb", spec(), "shop")
    assert [file.name for file in tmp_path.iterdir()] == ["dbt_project.yml"]
    assert (tmp_path / "dbt_project.yml").read_text() == "name: shop  # as it is\n"
