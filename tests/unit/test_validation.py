"""What a person reads when a document is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from floe_dagster.compilation.documents import read_document
from floe_dagster.compilation.validation import parse_manifest, parse_product
from floe_dagster.findings import Finding
from floe_dagster.schemas.plugins import PLUGIN_CATEGORIES, ApprovedPlugins, PluginDefaults
from floe_dagster.schemas.secrets import without_url_credentials

SPEC = """\
apiVersion: floe.dev/v1
kind: FloeSpec
metadata: {name: shop, version: 1.0.0, owner: shop@example.com}
platform: {manifest: ../manifest.yaml}
"""
MANIFEST = """\
apiVersion: floe.dev/v1
kind: Manifest
metadata: {name: platform-a, version: 1.0.0, owner: platform@example.com}
"""


def product_findings(tmp_path: Path, text: str) -> list[Finding]:
    path = tmp_path / "floe.yaml"
    path.write_text(text)
    return parse_product(read_document(path, root=tmp_path)).findings


def manifest_findings(tmp_path: Path, text: str) -> list[Finding]:
    path = tmp_path / "manifest.yaml"
    path.write_text(text)
    return parse_manifest(read_document(path, root=tmp_path)).findings


def test_a_good_spec_has_no_findings(tmp_path: Path) -> None:
    assert product_findings(tmp_path, SPEC) == []


def test_a_misspelt_field_gets_a_suggestion_and_its_place(tmp_path: Path) -> None:
    (finding,) = product_findings(tmp_path, SPEC + "shedule: {cron: 0 6 * * *}\n")
    assert (finding.code, finding.line, finding.column, finding.field) == ("unknown-field", 5, 1, "shedule")
    assert finding.fix == "Did you mean 'schedule'?"


def test_all_errors_come_at_once(tmp_path: Path) -> None:
    text = SPEC + "schedule: {cron: 99 6 * * *, timezone: Europe/Berlim}\nfreshness: {fail_after: 3}\n"
    findings = product_findings(tmp_path, text)
    assert [f.field for f in findings] == ["schedule.cron", "schedule.timezone", "freshness.fail_after"]
    assert "Europe/Berlin" in findings[1].message
    assert findings[2].allowed == "text" and findings[2].found == "3"


def test_a_repository_whose_address_cannot_be_read_is_found(tmp_path: Path) -> None:
    (finding,) = product_findings(tmp_path, SPEC + "repository: 'http://['\n")
    assert (finding.field, finding.line) == ("repository", 5) and "is no address" in finding.message
    assert product_findings(tmp_path, SPEC + "repository: 'git@github.com:a/b.git'\n") == []


def test_a_duration_that_no_clock_can_count_is_found(tmp_path: Path) -> None:
    (finding,) = product_findings(tmp_path, SPEC + "freshness: {fail_after: 99999999999d}\n")
    assert finding.field == "freshness.fail_after"
    (finding,) = product_findings(tmp_path, SPEC + "freshness: {fail_after: 36501d}\n")
    assert finding.allowed == "at most 36500d"
    assert product_findings(tmp_path, SPEC + "freshness: {fail_after: 36500d}\n") == []


def test_a_value_outside_the_choice_names_the_choice(tmp_path: Path) -> None:
    (finding,) = manifest_findings(tmp_path, MANIFEST + "governance: {policy_enforcement_level: strikt}\n")
    assert finding.allowed == "off, warn, strict"
    assert finding.fix == "Did you mean 'strict'?"
    assert (finding.line, finding.field) == (4, "governance.policy_enforcement_level")


def test_an_unquoted_off_is_a_level(tmp_path: Path) -> None:
    assert manifest_findings(tmp_path, MANIFEST + "governance: {policy_enforcement_level: off}\n") == []


def test_unknown_plugin_type_and_unknown_setting(tmp_path: Path) -> None:
    plugins = "plugins:\n  compute: {type: duckbd}\n  catalog: {type: sql, config: {urii: x}}\n"
    first, second = manifest_findings(tmp_path, MANIFEST + plugins)
    assert first.allowed == "duckdb, trino" and first.fix == "Did you mean 'duckdb'?"
    assert second.field == "plugins.catalog.config.urii" and second.fix == "Did you mean 'uri'?"


def test_unknown_top_level_keys_of_a_manifest_warn_but_observability_does_not(tmp_path: Path) -> None:
    (finding,) = manifest_findings(tmp_path, MANIFEST + "observability: {}\nfuture: 1\n")
    assert (finding.severity, finding.field) == ("warning", "future")


@pytest.mark.parametrize(
    ("approved", "field", "message", "fix"),
    [
        ("computes: [duckdb]", "computes", "unknown field 'computes'", "Did you mean 'compute'?"),
        ("plugins: [duckdb]", "plugins", "unknown field 'plugins'", "Remove it."),
        (
            "additional_compute: [trino]",
            "additional_compute",
            "additional_compute is no category",
            "Approve further engines under compute, with the default one.",
        ),
    ],
)
def test_what_is_approved_is_listed_by_category(
    tmp_path: Path, approved: str, field: str, message: str, fix: str
) -> None:
    (finding,) = manifest_findings(
        tmp_path, MANIFEST + f"approved_plugins:\n  catalog: [sql]\n  {approved}\n"
    )
    assert (finding.severity, finding.message, finding.fix) == ("error", message, fix)
    assert (finding.field, finding.line) == (f"approved_plugins.{field}", 6)
    assert sorted((finding.allowed or "").split(", ")) == sorted(PLUGIN_CATEGORIES)


def test_every_category_can_be_limited() -> None:
    assert list(ApprovedPlugins.model_fields) == list(PLUGIN_CATEGORIES)


def test_a_category_without_types_is_no_approval_of_all(tmp_path: Path) -> None:
    (finding,) = manifest_findings(tmp_path, MANIFEST + "approved_plugins:\n  compute:\n")
    assert (finding.field, finding.line) == ("approved_plugins.compute", 5)
    assert finding.found == "nothing" and (finding.allowed or "").startswith("a list")


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("https://etl:hush-marker@collector.example.com/v1", "https://collector.example.com/v1"),
        ("https://hush-marker@collector.example.com", "https://collector.example.com"),
        ("https://example.com/v1?team=a&api_key=hush-marker", "https://example.com/v1?team=a&"),
        ("https://example.com/v1?x-api-key=hush-marker#a", "https://example.com/v1?#a"),
    ],
)
def test_a_secret_in_an_address_is_found_and_goes_no_further(tmp_path: Path, address: str, kept: str) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(f"{MANIFEST}observability: {{tracing: {{endpoint: '{address}'}}}}\n")
    parsed = parse_manifest(read_document(path, root=tmp_path))
    (finding,) = parsed.findings
    assert (finding.code, finding.field) == ("literal-secret", "observability.tracing.endpoint")
    assert "marker" not in str(finding)
    assert parsed.value is not None and parsed.value.observability.tracing is not None
    assert parsed.value.observability.tracing.endpoint == kept


@pytest.mark.parametrize(
    "address",
    [
        "abfss://container@account.dfs.core.windows.net/warehouse",
        "postgresql+psycopg2://dagster@db.example.com/catalog",
        "postgresql://dagster:${PASSWORD}@db.example.com/catalog",
        "https://example.com/v1?api_key=${KEY}&orgId=1",
    ],
)
def test_a_user_and_a_reference_may_stand_in_an_address(address: str) -> None:
    assert without_url_credentials(address) == address


def test_a_literal_secret_is_found_and_never_shown(tmp_path: Path) -> None:
    text = MANIFEST + (
        "plugins:\n  catalog:\n    type: polaris\n    config:\n      uri: http://polaris/api/catalog\n"
        "      warehouse: w\n      oauth2: {client_id: etl, client_secret: hunter2-marker}\n"
    )
    (finding,) = manifest_findings(tmp_path, text)
    assert (finding.code, finding.line) == ("literal-secret", 10)
    assert "hunter2" not in finding.to_text()


def test_a_reserved_name_is_refused(tmp_path: Path) -> None:
    (finding,) = product_findings(tmp_path, SPEC.replace("name: shop", "name: class"))
    assert "Python keyword" in finding.message


def test_preset_with_request_above_limit(tmp_path: Path) -> None:
    (finding,) = manifest_findings(
        tmp_path, MANIFEST + "resource_presets: {small: {cpu_request: 2, cpu_limit: 500m}}\n"
    )
    assert "above its limit" in finding.message and finding.field == "resource_presets.small"


@pytest.mark.parametrize(
    ("url", "is_encrypted_or_here"),
    [
        ("http://localhost:5000", True),
        ("http://127.0.0.1:5000", True),
        ("http://127.1.2.3:5000", True),
        ("http://[::1]:5000", True),
        ("https://marquez.example.com", True),
        ("http://marquez.example.com", False),
        ("http://127.example.com", False),
        ("http://127.0.0.1.example.com", False),
    ],
)
def test_events_go_unencrypted_to_this_machine_alone(
    tmp_path: Path, url: str, is_encrypted_or_here: bool
) -> None:
    plugin = f"plugins: {{lineage_backend: {{type: marquez, config: {{url: '{url}'}}}}}}\n"
    found = manifest_findings(tmp_path, MANIFEST + plugin)
    assert [finding.message for finding in found] == (
        [] if is_encrypted_or_here else ["url is not encrypted"]
    )
    for finding in found:
        assert finding.field == "plugins.lineage_backend.config.url" and finding.line == 4
        assert finding.allowed == "https://, and http:// to this machine"
        assert finding.fix == "Use https://, or set allow_insecure_http: true."


def test_a_default_is_named_by_its_category(tmp_path: Path) -> None:
    (finding,) = manifest_findings(tmp_path, MANIFEST + "defaults:\n  copmute: trino\n")
    assert (finding.severity, finding.field, finding.line) == ("error", "defaults.copmute", 5)
    assert finding.message == "unknown field 'copmute'" and "compute" in (finding.fix or "")
    assert PluginDefaults().model_dump() == {
        "compute": "duckdb",
        "orchestrator": "dagster",
        "catalog": "sql",
        "storage": "local",
    }
