"""Observability: typed in the manifest, carried into the artifact."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from floe_dagster.compilation.builder import build_artifacts
from floe_dagster.compilation.documents import read_document
from floe_dagster.compilation.inheritance import load_manifest_chain
from floe_dagster.compilation.validation import parse_manifest, parse_product
from floe_dagster.schemas.artifacts import CompiledArtifacts, ResolvedGovernance

MANIFEST = "apiVersion: floe.dev/v1\nkind: Manifest\nmetadata: {name: platform-a, version: 1.0.0, owner: a}\n"
SPEC = "apiVersion: floe.dev/v1\nkind: FloeSpec\nmetadata: {name: shop-a, version: 1.2.0, owner: a}\n"


def build(folder: Path, observability: str = "", **arguments: Any) -> CompiledArtifacts:
    (folder / "workspace.yaml").write_text("")
    (folder / "manifest.yaml").write_text(MANIFEST + observability)
    (folder / "floe.yaml").write_text(SPEC)
    chain = load_manifest_chain(folder / "manifest.yaml", root=folder)
    assert chain.findings == []
    spec = parse_product(read_document(folder / "floe.yaml", root=folder)).value
    assert spec is not None
    return build_artifacts(
        spec,
        chain,
        {"metadata": {"project_name": "shop_a"}, "nodes": {}},
        source_hash="sha256:" + "0" * 64,
        dbt_profiles={},
        compiled_at=datetime(2024, 1, 1, tzinfo=UTC),
        **arguments,
    )


def test_observability_is_typed_and_never_among_the_unknown(tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text(
        MANIFEST + "observability: {tracing: {exporter: console}}\nobservabilty: 1\nlater: 2\n"
    )
    parsed = parse_manifest(read_document(tmp_path / "manifest.yaml", root=tmp_path))
    assert parsed.value is not None and parsed.value.observability is not None
    assert parsed.value.observability.tracing.exporter == "console"
    assert set(parsed.value.model_extra or {}) == {"observabilty", "later"}
    warnings = {finding.field: finding for finding in parsed.findings}
    assert warnings.keys() == {"observabilty", "later"}
    assert all(finding.severity == "warning" for finding in parsed.findings)
    assert warnings["observabilty"].fix == "Did you mean 'observability'?"


@pytest.mark.parametrize(
    "section",
    ["tracing: {exporter: jaeger}", "lineage: {transport: kafka}", "logging: {format: xml}", "metrics: {}"],
)
def test_what_observability_does_not_know_is_an_error(tmp_path: Path, section: str) -> None:
    (tmp_path / "manifest.yaml").write_text(f"{MANIFEST}observability: {{{section}}}\n")
    parsed = parse_manifest(read_document(tmp_path / "manifest.yaml", root=tmp_path))
    assert parsed.value is None
    assert [finding.severity for finding in parsed.findings] == ["error"]


@pytest.mark.parametrize("section", ["", "observability:\n"])
def test_without_a_section_traces_go_to_localhost_and_lineage_is_on(tmp_path: Path, section: str) -> None:
    observability = build(tmp_path, section).observability
    assert observability.telemetry.otlp_endpoint == "http://localhost:4317"
    assert observability.telemetry.enabled
    assert observability.lineage is True
    assert observability.lineage_endpoint is None
    assert observability.telemetry.resource_attributes is not None
    assert observability.telemetry.resource_attributes.service_name == "shop-a"
    assert observability.telemetry.resource_attributes.service_version == "1.2.0"


def test_the_manifest_decides_endpoints_transport_and_switches(tmp_path: Path) -> None:
    section = (
        "observability:\n"
        "  tracing: {endpoint: 'http://collector:4317'}\n"
        "  lineage: {transport: http, endpoint: 'http://marquez:5000'}\n"
        "  logging: {level: DEBUG, format: text}\n"
    )
    observability = build(tmp_path, section).observability
    assert observability.telemetry.otlp_endpoint == "http://collector:4317"
    assert observability.lineage_endpoint == "http://marquez:5000"
    assert observability.lineage_transport == "http"
    assert observability.telemetry.logging.log_level == "DEBUG"
    assert observability.telemetry.logging.json_output is False
    off = build(tmp_path, "observability: {tracing: {enabled: false}, lineage: {enabled: false}}\n")
    assert off.observability.lineage is False and off.observability.telemetry.enabled is False


def test_governance_is_an_argument_that_may_be_left_out(tmp_path: Path) -> None:
    parameter = inspect.signature(build_artifacts).parameters["governance"]
    assert parameter.default is None
    assert build(tmp_path).governance is None
    given = ResolvedGovernance(policy_enforcement_level="strict")
    assert build(tmp_path, governance=given).governance == given


def test_same_inputs_give_the_same_bytes_wherever_they_lie(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    first, second = (build(tmp_path_factory.mktemp(name)).model_dump_json() for name in ("a", "b"))
    assert first == second


@pytest.mark.parametrize(
    "section",
    [
        "tracing: {headers: {Authorization: Bearer marker-5d41402a}}",
        "lineage: {api_key: marker-5d41402a}",
    ],
)
def test_a_secret_itself_is_found_and_never_repeated(tmp_path: Path, section: str) -> None:
    (tmp_path / "manifest.yaml").write_text(f"{MANIFEST}observability: {{{section}}}\n")
    parsed = parse_manifest(read_document(tmp_path / "manifest.yaml", root=tmp_path))
    assert [finding.code for finding in parsed.findings] == ["literal-secret"]
    assert not any("marker" in finding.to_text() for finding in parsed.findings)
    assert parsed.value is not None and "marker" not in parsed.value.model_dump_json()


@pytest.mark.parametrize(
    "reference",
    ["{env: OTLP_AUTH}", "${OTLP_AUTH}", "{secret: otlp, key: token}", "{secret: o, key: t, env: X}"],
)
@pytest.mark.parametrize("field", ["tracing: {headers: {Authorization: %s}}", "lineage: {api_key: %s}"])
def test_every_kind_of_reference_is_taken(tmp_path: Path, field: str, reference: str) -> None:
    section = field.replace("%s", reference if reference.startswith("{") else f'"{reference}"')
    artifact = build(tmp_path, f"observability: {{{section}}}\n")
    observability = artifact.observability
    kept = (
        observability.lineage_api_key
        or (observability.telemetry.authentication or {})["headers"]["Authorization"]
    )
    assert kept["env"] in ("OTLP_AUTH", "FLOE_SECRET_OTLP_TOKEN", "X")


@pytest.mark.parametrize(
    "address",
    [
        "no url",
        "http://",
        "http://:4317",
        "http://collector:0",
        "collector:0",
        "http://collector:65536",
        "http://[::1",
    ],
)
def test_a_malformed_endpoint_is_found_once(tmp_path: Path, address: str) -> None:
    (tmp_path / "manifest.yaml").write_text(
        f"{MANIFEST}observability: {{tracing: {{endpoint: '{address}'}}}}\n"
    )
    parsed = parse_manifest(read_document(tmp_path / "manifest.yaml", root=tmp_path))
    (finding,) = parsed.findings
    assert finding.field == "observability.tracing.endpoint" and finding.line == 4


@pytest.mark.parametrize(
    "address", ["collector:4317", "[::1]:4317", "https://[fe80::1]", "http://collector/v1"]
)
def test_addresses_with_a_host_are_taken(tmp_path: Path, address: str) -> None:
    artifact = build(tmp_path, f"observability: {{tracing: {{endpoint: '{address}'}}}}\n")
    assert artifact.observability.telemetry.otlp_endpoint == address
