"""A product sets no property that moves data, metadata or code, wherever it writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyiceberg.table import TableProperties

from floe_dagster.compilation.documents import read_document
from floe_dagster.compilation.pipeline import validate_product
from floe_dagster.compilation.table_properties import check_model_properties, is_allowed
from floe_dagster.compilation.validation import parse_product
from floe_dagster.findings import Finding

MOVING = [
    "write.data.path",
    "write.metadata.path",
    "write.folder-storage.path",
    "write.object-storage.path",
    "write.object-storage.enabled",
    "write.location-provider.impl",
    "write.py-location-provider.impl",
    "py-io-impl",
    "io-impl",
    "catalog-impl",
    "write.parquet.impl.path",
    "gc.enabled",
    "floe.product",
    "floe.clone-of",
    "history.expire.min-snapshots-to-keep",
    "history.expire.max-snapshot-age-ms",
    "write.metadata.delete-after-commit.enabled",
    "write.metadata.previous-versions-max",
    "write.wap.enabled",
    "encryption.key-id",
    "format-version",
    "location",
    "s3.endpoint",
    "commit.manifest-merge.enabled",
    "schema.name-mapping.default",
    "external.table.purge",
    " write.target-file-size-bytes",
]
HARMLESS = [
    "comment",
    "owner",
    "write.target-file-size-bytes",
    "write.delete.target-file-size-bytes",
    "write.distribution-mode",
    "write.merge.distribution-mode",
    "write.parquet.compression-codec",
    "write.parquet.bloom-filter-enabled.column.id",
    "write.metadata.metrics.column.id",
    "read.split.target-size",
]


@pytest.mark.parametrize("name", MOVING)
def test_what_is_the_platforms_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "workspace.yaml").write_text("")
    (tmp_path / "dbt_project.yml").write_text("name: shop\n")
    (tmp_path / "manifest.yaml").write_text(
        "apiVersion: floe.dev/v1\nkind: Manifest\nmetadata: {name: platform-x, version: 1.0.0, owner: a}\n"
    )
    (tmp_path / "floe.yaml").write_text(
        "apiVersion: floe.dev/v1\nkind: FloeSpec\nmetadata: {name: shop, version: 1.0.0, owner: a}\n"
        "platform: {manifest: manifest.yaml}\ntransforms:\n  - name: orders\n    table:\n      properties:\n"
        f"        comment: fine\n        '{name}': 'x'\n"
    )
    result = validate_product(tmp_path, documents_only=True, environ={})
    (finding,) = [each for each in result.findings if each.code == "platform-property"]
    assert (finding.file, finding.line, finding.severity) == ("floe.yaml", 10, "error")
    assert finding.found == name and finding.fix and finding.allowed
    assert result.exit_code == 2


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_harmless_is_the_products(name: str) -> None:
    assert is_allowed(name, ())


def test_no_property_of_pyiceberg_that_names_a_place_or_code_is_allowed() -> None:
    known = {
        value for key, value in vars(TableProperties).items() if key.isupper() and isinstance(value, str)
    }
    dangerous = {
        name for name in known if "path" in name or name.endswith("impl") or "object-storage" in name
    }
    assert len(dangerous) >= 4 and not [name for name in dangerous if is_allowed(name, ())]


@pytest.mark.parametrize(
    ("lists", "name", "allowed"),
    [
        ([["history.*"]], "history.expire.max-snapshot-age-ms", True),
        ([["history.*"], ["gc.enabled"]], "history.expire.max-snapshot-age-ms", False),
        ([["gc.*"], ["gc.enabled"]], "gc.enabled", True),
        ([["*"]], "floe.product", False),
        ([[]], "gc.enabled", False),
        ([[]], "comment", True),
    ],
)
def test_the_platform_allows_further_ones_and_never_ours(
    lists: list[list[str]], name: str, allowed: bool
) -> None:
    assert is_allowed(name, lists) is allowed


def of_model(config: dict[str, Any], raw_code: str = "select 1") -> list[Finding]:
    node = {
        "unique_id": "model.shop.a",
        "resource_type": "model",
        "name": "a",
        "original_file_path": "models/a.sql",
        "raw_code": raw_code,
        "config": {"materialized": "table", **config},
    }
    manifest = {"nodes": {"model.shop.a": node}}
    return list(check_model_properties(manifest, "shop", lambda _path: None, ()))


@pytest.mark.parametrize(
    "config",
    [
        {"properties": {"location": "'s3://elsewhere/x'"}},
        {"properties": {"LOCATION": "'s3://elsewhere/x'"}},
        {"properties": {"data_location": "'s3://elsewhere/x'"}},
        {"properties": {"object_store_layout_enabled": "true"}},
        {"properties": {"extra_properties": "map_from_entries(array[row('write.data.path', 's3://x')])"}},
        {"properties": {"partitioning": "ARRAY['day'], location = 's3://x'"}},
        {"properties": {"format": "'PARQUET', location = 's3://x'"}},
        {"properties": {"format = 'PARQUET', location": "'s3://x'"}},
        {"properties": "location = 's3://x'"},
        {"table_properties": {"write.data.path": "s3://x"}},
        {"tblproperties": {"write.location-provider.impl": "x.Y"}},
        {"file_format": "PARQUET', location = 's3://x"},
        {"table_format": "iceberg', location = 's3://x"},
        {"location": "s3://x"},
        {"location_root": "s3://x"},
    ],
)
def test_no_config_of_a_model_moves_its_table(config: dict[str, Any]) -> None:
    (finding,) = of_model(config)
    assert (finding.code, finding.severity, finding.file, finding.line) == (
        "platform-property",
        "error",
        "shop/models/a.sql",
        1,
    )
    assert str(finding.field).startswith("config.") and finding.model == "a"


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"properties": {"partitioning": "ARRAY['day(at)', 'bucket(id, 4)']", "format_version": "2"}},
        {"properties": {"format": "'PARQUET'", "sorted_by": "array['id DESC']", "max_commit_retry": 4}},
        {"file_format": "parquet", "table_properties": {"write.parquet.compression-codec": "zstd"}},
        {"location": "out.csv", "materialized": "external"},
    ],
)
def test_what_lays_out_a_table_is_the_models(config: dict[str, Any]) -> None:
    assert of_model(config) == []


def test_the_line_is_that_of_the_config_in_the_sql() -> None:
    sql = "-- a\n{{ config(\n  properties={'location': \"'s3://x'\"}\n) }}\nselect 1"
    (finding,) = of_model({"properties": {"location": "'s3://x'"}}, sql)
    assert (finding.file, finding.line) == ("shop/models/a.sql", 3)


def test_a_spec_without_transforms_has_nothing_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "floe.yaml").write_text(
        "apiVersion: floe.dev/v1\nkind: FloeSpec\nmetadata: {name: shop, version: 1.0.0, owner: a}\n"
    )
    from floe_dagster.compilation.table_properties import check_spec_properties

    spec = parse_product(read_document(tmp_path / "floe.yaml", root=tmp_path))
    assert list(check_spec_properties(spec, ())) == []
