"""What a manifest may say of engines beside the default one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from floe_dagster.compilation.builder import listed_engines, resolved_plugins
from floe_dagster.compilation.documents import read_document
from floe_dagster.compilation.engines import check_engine
from floe_dagster.compilation.inheritance import load_manifest_chain
from floe_dagster.compilation.validation import parse_manifest
from floe_dagster.findings import Finding
from floe_dagster.schemas.artifacts import CompiledArtifacts
from floe_dagster.schemas.manifest import PlatformManifest
from tests.conftest import MANIFEST

TRINO: dict[str, Any] = {"type": "trino", "config": {"host": "trino.example", "catalog": "lake"}}
DUCKDB: dict[str, Any] = {"type": "duckdb", "config": {"memory_limit": "2GB"}}


def manifest(**plugins: Any) -> PlatformManifest:
    return PlatformManifest.model_validate({**yaml.safe_load(MANIFEST), "plugins": plugins})


def findings(tmp_path: Path, plugins: str) -> list[Finding]:
    path = tmp_path / "manifest.yaml"
    path.write_text(f"{MANIFEST}plugins:\n{plugins}")
    return parse_manifest(read_document(path, root=tmp_path)).findings


@pytest.mark.parametrize(
    ("plugins", "field", "said"),
    [
        ("  additional_compute: [{type: trino, config: {host: h, catalog: c}}]\n", None, ""),
        (
            "  compute: {type: duckdb}\n  additional_compute: [{type: duckdb}]\n",
            "additional_compute[0].type",
            "type names duckdb again",
        ),
        (
            "  additional_compute:\n  - {type: duckdb}\n  - {type: duckdb}\n",
            "additional_compute[1].type",
            "type names duckdb again",
        ),
        ("  additional_compute: [{type: spark}]\n", "additional_compute[0].type", "type has a value"),
        ("  additional_compute: [{type: trino}]\n", "additional_compute[0].config", "config is missing"),
        (
            "  additional_compute: [{type: trino, config: {host: h, catalog: c, prot: 1}}]\n",
            "additional_compute[0].config.prot",
            "unknown field 'prot'",
        ),
    ],
)
def test_each_engine_is_listed_once_with_its_config(
    tmp_path: Path, plugins: str, field: str | None, said: str
) -> None:
    found = findings(tmp_path, plugins)
    assert [finding.field for finding in found] == ([f"plugins.{field}"] if field else [])
    assert all(finding.message.startswith(said) for finding in found)


def test_an_engine_that_is_listed_again_is_shown_where_it_stands_the_second_time(tmp_path: Path) -> None:
    (finding,) = findings(tmp_path, "  additional_compute:\n  - {type: duckdb}\n  - {type: duckdb}\n")
    assert (finding.line, finding.column, finding.found) == (7, 12, "'duckdb'")
    assert finding.allowed == "each engine once, in compute or in additional_compute"
    assert finding.fix == "Remove one of the two: an engine has one config."


def test_a_literal_password_of_a_further_engine_is_never_repeated(tmp_path: Path) -> None:
    config = "{host: h, catalog: c, http_scheme: https, user: etl, password: hush-marker}"
    (finding,) = findings(tmp_path, f"  additional_compute: [{{type: trino, config: {config}}}]\n")
    assert (finding.code, finding.field) == (
        "literal-secret",
        "plugins.additional_compute[0].config.password",
    )
    assert "marker" not in finding.to_text()


def test_an_artifact_holds_the_engines_that_the_product_names() -> None:
    platform = manifest(additional_compute=[TRINO])
    assert listed_engines(platform) == ["duckdb", "trino"]
    assert resolved_plugins(platform).additional_compute is None
    assert list(resolved_plugins(platform, {"duckdb"}).engines()) == ["duckdb"]
    engines = resolved_plugins(platform, {"trino"}).engines()
    assert list(engines) == ["duckdb", "trino"]
    assert (engines["trino"].config or {})["host"] == "trino.example"


def test_an_older_artifact_has_one_engine() -> None:
    plugins = {"compute": {"type": "duckdb"}, "orchestrator": {"type": "dagster"}}
    document = {
        "version": "0.2.0",
        "metadata": {
            "compiled_at": "2024-01-01T00:00:00Z",
            "floe_version": "0.1.0",
            "source_hash": "sha256:" + "0" * 64,
            "product_name": "shop",
            "product_version": "1.0.0",
        },
        "identity": {"product_id": "default.shop", "domain": "default"},
        "observability": {},
        "plugins": plugins,
    }
    loaded = CompiledArtifacts.load(document).plugins
    assert loaded is not None and list(loaded.engines()) == ["duckdb"]


def test_the_nearest_layer_that_lists_engines_wins(tmp_path: Path) -> None:
    def written(name: str, head: str, plugins: dict[str, Any]) -> Path:
        path = tmp_path / name
        path.write_text(f"{MANIFEST}{head}{yaml.safe_dump({'plugins': plugins})}")
        return path

    written("parent.yaml", "", {"compute": DUCKDB, "additional_compute": [TRINO]})
    head = "scope: domain\nparent_manifest: parent.yaml\n"
    for plugins, engines in (
        ({}, ["duckdb", "trino"]),
        ({"additional_compute": []}, ["duckdb"]),
        # The parent's further engine is the domain's only one: its own settings count.
        ({"compute": TRINO}, ["trino"]),
        ({"compute": TRINO, "additional_compute": [DUCKDB]}, ["trino", "duckdb"]),
    ):
        chain = load_manifest_chain(written("domain.yaml", head, plugins), root=tmp_path)
        assert chain.merged is not None, chain.findings
        assert listed_engines(chain.merged) == engines
        assert list(resolved_plugins(chain.merged, {"duckdb", "trino"}).engines()) == engines


def test_only_engines_that_a_product_names_have_to_work_for_it() -> None:
    platform = manifest(additional_compute=[TRINO])
    types = {"compute": "duckdb", "catalog": "sql", "storage": "local"}
    places = {"additional_compute[0]": ("m.yaml", 9)}
    assert check_engine(platform, types, places, "m.yaml") == []
    (finding,) = check_engine(platform, types, places, "m.yaml", {"trino"})
    assert (finding.code, finding.line) == ("unshared-catalog", 9)
    assert (finding.field, finding.found) == ("plugins.additional_compute[0].type", "trino")
