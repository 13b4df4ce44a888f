"""The documents and their versions."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel, ValidationError

from floe_dagster.findings import InputError
from floe_dagster.schemas.artifacts import CompiledArtifacts, Part, UnknownFieldsWarning
from floe_dagster.schemas.base import Section
from floe_dagster.schemas.forms import in_words
from floe_dagster.schemas.json_schema import json_schemas
from floe_dagster.schemas.manifest import PlatformManifest
from floe_dagster.schemas.product import ProductSpec
from floe_dagster.schemas.versions import COMPILED_ARTIFACTS_VERSION, VERSION_HISTORY

ROOT = Path(__file__).resolve().parent.parent.parent
MANIFEST: dict[str, Any] = {
    "apiVersion": "floe.dev/v1",
    "kind": "Manifest",
    "metadata": {"name": "platform-a", "version": "1.0.0", "owner": "a"},
}


def artifact(version: str) -> dict[str, Any]:
    """An artifact as that version wrote it."""
    document: dict[str, Any] = {
        "version": version,
        "metadata": {
            "compiled_at": "2024-01-01T00:00:00Z",
            "floe_version": "0.1.0",
            "source_hash": "sha256:" + "0" * 64,
            "product_name": "shop",
            "product_version": "1.0.0",
        },
        "identity": {"product_id": "default.shop", "domain": "default"},
        "mode": "simple",
        "inheritance_chain": [],
        "observability": {"telemetry": {"enabled": True}, "lineage": True},
    }
    number = tuple(int(part) for part in version.split("."))
    if number >= (0, 2, 0):
        document |= {
            "plugins": {"compute": {"type": "duckdb"}, "orchestrator": {"type": "dagster"}},
            "transforms": {"models": [{"name": "a", "compute": "duckdb"}], "default_compute": "duckdb"},
            "dbt_profiles": {"shop": {}},
            "governance": {"policy_enforcement_level": "warn"},
        }
    if number >= (0, 3, 0):
        document["enforcement_result"] = {
            "passed": True,
            "error_count": 0,
            "warning_count": 0,
            "policy_types_checked": [],
            "models_validated": 1,
            "enforcement_level": "warn",
        }
    if number >= (0, 4, 0):
        document["transforms"]["models"][0] |= {"quality_tier": "gold", "quality_checks": ["unique"]}
    if number >= (0, 5, 0):
        document["plugins"]["lineage_backend"] = {"type": "marquez"}
    if number >= (0, 6, 0):
        document["plugins"]["ingestion"] = {"type": "dlt"}
    if number >= (0, 7, 0):
        document["enforcement_result"] |= {"rbac_principal": "etl", "secrets_scanned": True}
    if number >= (0, 8, 0):
        document["observability"] |= {"lineage_endpoint": "http://m:5000", "lineage_transport": "http"}
    if number >= (0, 9, 0):
        document["observability"] |= {
            "lineage_file": "events.jsonl",
            "dataset_url": "https://m/{namespace}/{name}",
        }
    if number >= (0, 10, 0):
        document["environment"] = ["REGION"]
    return document


def foreign_artifact(version: str) -> dict[str, Any]:
    """An artifact as another writer of that version may have left it.

    These values are what the schema of each version took, as it was published with the plan that this project follows.
    The versions of this project are stricter: they write one digest, names of checks, and yes or no.
    """
    number = tuple(int(part) for part in version.split("."))
    document = artifact(version)
    document["metadata"] |= {"source_hash": "sha256:abc123", "product_name": "My_Shop"}
    document["identity"] |= {"repository": "github.com/a/b", "registration_timestamp": "2025-01-10T12:00:00Z"}
    document["inheritance_chain"] = [
        {"name": "e", "version": "1.0.0", "scope": "enterprise", "ref": "oci://registry/e:1.0.0"}
    ]
    document["observability"]["telemetry"] |= {
        "backend": "jaeger",
        "authentication": {"auth_type": "bearer", "bearer_token": "**********", "header_name": "X"},
        "logging": {"log_level": "critical", "json_output": False},
    }
    document["observability"]["lineage_namespace"] = "my-shop"
    if number >= (0, 2, 0):
        document["plugins"]["compute"] |= {"version": "0.9.0", "config": None}
    if number >= (0, 3, 0):
        document["data_contracts"] = [{"apiVersion": "v3.1.0", "name": "orders"}]
    if number >= (0, 4, 0):
        check = {"name": "id", "type": "not_null", "column": None, "dimension": "validity", "parameters": {}}
        document["transforms"]["models"][0]["quality_checks"] = [check]
        document["quality_config"] = {"provider": "great_expectations"}
    if number >= (0, 6, 0):
        document["plugins"]["semantic"] = {"type": "cube", "version": "0.1.0"}
    if number >= (0, 7, 0):
        document["enforcement_result"] |= {"rbac_principal": None, "secrets_scanned": 17}
    return document


BEFORE_DIGESTS = [f"0.{minor}.0" for minor in range(1, 8)]


def test_every_version_has_its_entry() -> None:
    assert COMPILED_ARTIFACTS_VERSION == "0.10.0"
    assert list(VERSION_HISTORY) == [f"0.{minor}.0" for minor in range(1, 11)]


@pytest.mark.parametrize("version", list(VERSION_HISTORY))
def test_every_version_loads_without_a_warning(version: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = CompiledArtifacts.load(artifact(version))
    assert loaded.version == version
    if version in BEFORE_DIGESTS:
        assert loaded.observability.lineage_transport is None


@pytest.mark.parametrize("version", BEFORE_DIGESTS)
def test_what_others_wrote_in_early_versions_is_read_and_kept(version: str) -> None:
    document = foreign_artifact(version)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = CompiledArtifacts.load(json.dumps(document))
    kept = loaded.model_dump(mode="json")
    assert_holds(kept, document)
    # Who works on with it writes it again.
    assert CompiledArtifacts.load(loaded.model_dump_json()) == loaded


def assert_holds(kept: Any, wanted: Any) -> None:
    """Each value of `wanted` stands in `kept`, where further ones may stand beside it."""
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            assert_holds(kept[key], value)
    elif isinstance(wanted, list):
        assert len(kept) == len(wanted)
        for inner, value in zip(kept, wanted, strict=True):
            assert_holds(inner, value)
    else:
        assert kept == wanted and type(kept) is type(wanted)


@pytest.mark.parametrize("digest", ["", "abc123", "md5:1", "sha256:" + "G" * 64, "sha256:" + "0" * 64 + "\n"])
@pytest.mark.parametrize("version", BEFORE_DIGESTS)
def test_any_text_stood_for_the_digest_before_it_was_one(version: str, digest: str) -> None:
    document = artifact(version)
    document["metadata"]["source_hash"] = digest
    assert CompiledArtifacts.load(document).metadata.source_hash == digest


@pytest.mark.parametrize(
    "digest", ["", "sha256:abc123", "sha256:" + "A" * 64, "sha256:" + "0" * 65, "sha256:" + "0" * 64 + "\n"]
)
@pytest.mark.parametrize("version", ["0.8.0", "0.9.0", "0.10.0"])
@pytest.mark.filterwarnings("ignore::floe_dagster.schemas.artifacts.UnknownFieldsWarning")
def test_a_malformed_digest_is_refused_from_0_8_0_on(version: str, digest: str) -> None:
    document = artifact("0.8.0") | {"version": version}
    document["metadata"]["source_hash"] = digest
    with pytest.raises(InputError) as refused:
        CompiledArtifacts.load(document)
    (finding,) = refused.value.findings
    assert finding.field == "metadata.source_hash" and "64 hexadecimal digits" in finding.message


def test_what_is_written_has_a_digest() -> None:
    document = artifact(COMPILED_ARTIFACTS_VERSION)
    written = CompiledArtifacts(**{key: value for key, value in document.items() if key != "version"})
    assert written.version == COMPILED_ARTIFACTS_VERSION
    document["metadata"]["source_hash"] = "sha256:abc123"
    with pytest.raises(ValidationError, match=r"metadata\.source_hash"):
        CompiledArtifacts(**{key: value for key, value in document.items() if key != "version"})


@pytest.mark.parametrize("version", list(VERSION_HISTORY))
def test_the_json_schema_takes_what_is_loaded(version: str) -> None:
    schema = jsonschema.Draft202012Validator(json_schemas()["compiled_artifacts"])
    schema.validate(artifact(version))
    if version in BEFORE_DIGESTS:
        schema.validate(foreign_artifact(version))
    else:
        assert not schema.is_valid(artifact(version) | {"metadata": foreign_artifact(version)["metadata"]})


def test_a_newer_minor_version_keeps_what_is_unknown() -> None:
    document = artifact("0.10.0") | {"version": "0.11.0", "later": {"x": 1}}
    with pytest.warns(UnknownFieldsWarning, match=r"0\.11\.0"):
        loaded = CompiledArtifacts.load(document)
    assert loaded.model_dump()["later"] == {"x": 1}


def test_a_newer_major_version_is_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match="Upgrade floe-dagster"):
        CompiledArtifacts.load(artifact("0.10.0") | {"version": "1.0.0"})


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"version": "x"}'])
def test_what_is_no_artifact_is_refused(content: bytes) -> None:
    with pytest.raises(InputError):
        CompiledArtifacts.load(content)


def test_empty_observability_gives_defaults() -> None:
    manifest = PlatformManifest.model_validate({**MANIFEST, "observability": {}})
    assert manifest.observability is not None
    assert manifest.observability.tracing.exporter == "otlp"
    assert manifest.observability.lineage.transport == "http"
    assert manifest.observability.logging.format == "json"
    assert not manifest.model_extra


def test_tracing_alone_leaves_the_rest_at_their_defaults() -> None:
    section = {"tracing": {"endpoint": "http://collector:4317"}}
    manifest = PlatformManifest.model_validate({**MANIFEST, "observability": section})
    assert manifest.observability is not None
    assert manifest.observability.tracing.endpoint == "http://collector:4317"
    assert manifest.observability.lineage.enabled and manifest.observability.logging.level == "INFO"


def test_a_manifest_keeps_unknown_fields() -> None:
    manifest = PlatformManifest.model_validate({**MANIFEST, "future": 1})
    assert manifest.model_extra == {"future": 1}


def test_what_was_said_of_trino_before_products_ran_on_it_is_still_read() -> None:
    known: dict[str, Any] = {
        "host": "trino.example",
        "port": 8443,
        "catalog": "floe",
        "user": "etl",
        "password": {"env": "TRINO_PASSWORD"},
        "http_scheme": "https",
        "session_properties": {"query_max_run_time": "2h"},
        "threads": 8,
    }
    for config in (known, {"host": "trino.example", "catalog": "floe"}):
        plugins = {"compute": {"type": "trino", "version": "476", "config": config}}
        manifest = PlatformManifest.model_validate({**MANIFEST, "plugins": plugins})
        assert manifest.plugins.compute is not None
        held = manifest.plugins.compute.config.model_dump(mode="json", exclude_none=True)
        assert config.items() <= held.items()


@pytest.mark.parametrize("name", ["manifest", "product", "compiled_artifacts"])
def test_the_exported_json_schemas_are_current(name: str) -> None:
    exported = json.loads((ROOT / "docs" / "schemas" / f"{name}.schema.json").read_text())
    assert exported == json_schemas()[name], "run `floe-dagster schema --write docs/schemas`"


def subclasses(model: type[BaseModel]) -> set[type[BaseModel]]:
    return {model}.union(*(subclasses(inner) for inner in model.__subclasses__()))


def test_every_field_of_every_document_is_described() -> None:
    models = subclasses(Section) | subclasses(Part) | {PlatformManifest}
    assert len(models) > 40
    for model in models:
        for name, info in model.model_fields.items():
            assert info.description, f"{model.__name__}.{name}"


def test_each_pattern_of_a_document_is_said_in_words() -> None:
    """A person who has to mend a value is not shown a regular expression where words can say what it is."""

    def patterns(schema: Any) -> Iterator[str]:
        for key, value in schema.items() if isinstance(schema, dict) else enumerate(schema):
            if key == "pattern" and isinstance(value, str):
                yield value
            elif isinstance(value, dict | list):
                yield from patterns(value)

    found = {
        pattern
        for model in (PlatformManifest, ProductSpec)
        for pattern in patterns(model.model_json_schema())
    }
    # What a validator of ours checks has words of its own.
    assert found and {pattern for pattern in found if "matches" in in_words(pattern)} <= {"^[^:]+$"}
