"""The compiled document: `compiled_artifacts.json`, what everything downstream reads."""

from __future__ import annotations

import json
import re
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from floe_dagster.digests import DIGEST_PATTERN, is_digest
from floe_dagster.findings import Finding, InputError
from floe_dagster.schemas.compute import DEFAULT_ENGINE
from floe_dagster.schemas.compute.engine import compute_field
from floe_dagster.schemas.versions import COMPILED_ARTIFACTS_VERSION

FIRST_VERSION_WITH_DIGEST = (0, 8)
"""MAJOR and MINOR from which on `metadata.source_hash` is a digest; any text stands there before."""


class UnknownFieldsWarning(UserWarning):
    """An artifact comes from a newer MINOR version; its unknown fields are kept."""


class Part(BaseModel):
    """A part of the artifact; fields of newer versions are kept."""

    model_config = ConfigDict(extra="allow", populate_by_name=True, defer_build=True)


class ArtifactMetadata(Part):
    compiled_at: datetime = Field(description="When it was compiled, UTC.")
    floe_version: str = Field(description="Version of floe-dagster that compiled it.")
    source_hash: str = Field(
        description="Digest over everything that decided the outcome: sha256: and 64 hexadecimal digits; "
        "any text before 0.8.0."
    )
    product_name: str = Field(description="Name of the product.")
    product_version: str = Field(description="Version of the product.")


class ProductIdentity(Part):
    product_id: str = Field(description="domain.product_slug")
    domain: str = Field(description="Name of the domain manifest, else default.")
    repository: str | None = Field(None, description="Where the product's source lives.")
    namespace_registered: bool = Field(False, description="The namespace was registered with a catalog.")
    registration_timestamp: datetime | None = Field(None, description="When it was registered.")


class InheritanceLayer(Part):
    name: str = Field(description="Name of the manifest.")
    version: str = Field(description="Version of the manifest.")
    scope: Literal["enterprise", "domain"] | None = Field(None, description="Its scope.")
    ref: str | None = Field(None, description="File name of the manifest.")


class SamplingConfig(Part):
    dev: float = Field(1.0, ge=0, le=1, description="Share of traces kept in development.")
    staging: float = Field(0.5, ge=0, le=1, description="Share of traces kept in staging.")
    prod: float = Field(0.1, ge=0, le=1, description="Share of traces kept in production.")


class ResourceAttributes(Part):
    service_name: str = Field(description="OpenTelemetry service.name: the product's name.")
    service_version: str = Field(description="OpenTelemetry service.version: the product's version.")
    deployment_environment: str | None = Field(None, description="Set at run time.")
    floe_namespace: str = Field(description="Iceberg namespace of the product.")
    floe_product_name: str = Field(description="Name of the product.")
    floe_product_version: str = Field(description="Version of the product.")
    floe_mode: str = Field(description="simple, centralized or mesh.")


class BatchProcessorConfig(Part):
    max_queue_size: int = Field(2048, ge=1, description="Spans that wait at most.")
    max_export_batch_size: int = Field(512, ge=1, description="Spans of one export at most.")
    schedule_delay_millis: int = Field(5000, ge=1, description="Milliseconds between exports.")
    export_timeout_millis: int = Field(30000, ge=1, description="Milliseconds an export may take.")


class TelemetryLogging(Part):
    log_level: str = Field("INFO", description="Lowest level that is logged.")
    json_output: bool = Field(True, description="JSON lines rather than text.")


class TelemetryConfig(Part):
    enabled: bool = Field(True, description="Emit traces.")
    otlp_endpoint: str = Field("http://localhost:4317", description="OTLP endpoint.")
    otlp_protocol: Literal["grpc", "http"] = Field("grpc", description="OTLP protocol.")
    sampling: SamplingConfig = Field(default_factory=SamplingConfig, description="Share of traces kept.")
    resource_attributes: ResourceAttributes | None = Field(None, description="Who emits.")
    authentication: dict[str, Any] | None = Field(None, description="References to credentials.")
    batch_processor: BatchProcessorConfig = Field(
        default_factory=BatchProcessorConfig, description="Batching of spans."
    )
    logging: TelemetryLogging = Field(default_factory=TelemetryLogging, description="Logs.")
    backend: str = Field("otlp", description="otlp, console or none.")
    endpoint_is_default: bool = Field(
        False,
        description="No endpoint was named: where nobody listens at the default, nothing is sent (0.9.0).",
    )
    certificate_file: str | None = Field(None, description="PEM file with the authorities to trust (0.9.0).")
    trace_url: str | None = Field(None, description="Page of a trace, with {trace_id} in it (0.9.0).")


class ObservabilityConfig(Part):
    telemetry: TelemetryConfig = Field(default_factory=TelemetryConfig, description="Traces and logs.")
    lineage: bool = Field(True, description="Emit OpenLineage events.")
    lineage_namespace: str | None = Field(None, description="OpenLineage job namespace.")
    lineage_endpoint: str | None = Field(None, description="URL of the lineage backend.")
    lineage_transport: Literal["http", "console", "file", "noop"] | None = Field(
        None, description="How events leave (file: 0.9.0)."
    )
    lineage_file: str | None = Field(None, description="File of transport: file (0.9.0).")
    lineage_api_key: dict[str, Any] | None = Field(
        None, description="Reference to what is sent as bearer token (0.9.0)."
    )
    lineage_certificate_file: str | None = Field(
        None, description="PEM file with the authorities to trust (0.9.0)."
    )
    lineage_drain_seconds: float = Field(
        10.0, ge=0, description="How long a run waits at most for its events to leave (0.9.0)."
    )
    dataset_url: str | None = Field(
        None, description="Page of a dataset, with {namespace} and {name} in it (0.9.0)."
    )


class PluginRef(Part):
    type: str = Field(description="Type of the plugin.")
    version: str | None = Field(None, description="Version the platform asks for.")
    config: dict[str, Any] | None = Field(None, description="Settings; secrets are references only.")


class ResolvedPlugins(Part):
    compute: PluginRef = Field(description="Engine that dbt runs on.")
    additional_compute: list[PluginRef] | None = Field(
        None, description="Further engines that models of the product name (0.9.0)."
    )
    orchestrator: PluginRef = Field(description="Orchestrator.")
    catalog: PluginRef | None = Field(None, description="Iceberg catalog.")
    storage: PluginRef | None = Field(None, description="Storage of the tables.")
    ingestion: PluginRef | None = Field(None, description="Ingestion.")
    semantic: PluginRef | None = Field(None, description="Semantic layer.")
    lineage_backend: PluginRef | None = Field(None, description="Lineage backend.")

    def engines(self) -> dict[str, PluginRef]:
        """Return the engines of the product by type, the default first."""
        return {plugin.type: plugin for plugin in (self.compute, *(self.additional_compute or ()))}

    def engines_by_field(self) -> dict[str, PluginRef]:
        """Return them by where the manifest has their settings, for whoever tells what is wrong with these."""
        return {compute_field(name, self.compute.type): plugin for name, plugin in self.engines().items()}


class ResolvedModel(Part):
    name: str = Field(description="Name of the dbt model.")
    compute: str = Field(description="Engine that runs it.")
    tags: list[str] | None = Field(None, description="Tags.")
    depends_on: list[str] | None = Field(None, description="Models that it reads.")
    quality_checks: list[str | dict[str, Any]] | None = Field(
        None, description="Names of its data tests; mappings in 0.4.0 to 0.8.0 of others."
    )
    quality_tier: str | None = Field(None, description="bronze, silver or gold.")


class ResolvedTransforms(Part):
    models: list[ResolvedModel] = Field(description="The product's models, in the order of their names.")
    default_compute: str = Field(description="Engine where a model names none.")


class ResolvedGovernance(Part):
    pii_encryption: Literal["required", "optional"] | None = Field(
        None, description="Merged over all layers."
    )
    audit_logging: Literal["enabled", "disabled"] | None = Field(None, description="Merged over all layers.")
    policy_enforcement_level: Literal["off", "warn", "strict"] | None = Field(
        None, description="Merged over all layers; None where no layer has one (effective: warn)."
    )
    data_retention_days: int | None = Field(None, description="Days; merged over all layers.")
    default_ttl_hours: int | None = Field(None, description="Hours; the nearest layer's.")
    snapshot_keep_last: int | None = Field(None, description="Snapshots; the nearest layer's.")


class EnforcementResult(Part):
    passed: bool = Field(description="Nothing blocks.")
    error_count: int = Field(ge=0, description="Findings that block.")
    warning_count: int = Field(ge=0, description="Findings that do not.")
    policy_types_checked: list[str] = Field(description="Names of the policies that ran.")
    models_validated: int = Field(ge=0, description="Models that were looked at.")
    enforcement_level: Literal["off", "warn", "strict"] = Field(description="Effective level.")
    rbac_principal: str | None = Field(None, description="Principal that writes the tables.")
    secrets_scanned: bool | int | None = Field(
        None, description="Documents and SQL were scanned for secrets; a count in 0.7.0 and 0.8.0 of others."
    )


class CompiledArtifacts(Part):
    """The compiled product. `load` reads every version from 0.1.0 on."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"version": {"pattern": r"^0\.[0-7]\.\d+$"}}, "required": ["version"]},
            "else": {
                "properties": {"metadata": {"properties": {"source_hash": {"pattern": DIGEST_PATTERN}}}}
            },
        }
    )

    version: str = Field(COMPILED_ARTIFACTS_VERSION, description="Version of this document format.")
    metadata: ArtifactMetadata = Field(description="When and from what it was compiled.")
    identity: ProductIdentity = Field(description="Which product it is.")
    mode: Literal["simple", "centralized", "mesh"] = Field(
        "simple", description="Length of the manifest chain."
    )
    inheritance_chain: list[InheritanceLayer] = Field(
        default_factory=list, description="The manifests, nearest first."
    )
    observability: ObservabilityConfig = Field(description="Traces, lineage, logs.")
    plugins: ResolvedPlugins | None = Field(None, description="What it runs on (0.2.0).")
    transforms: ResolvedTransforms | None = Field(None, description="Its models (0.2.0).")
    dbt_profiles: dict[str, Any] | None = Field(None, description="Content of profiles.yml (0.2.0).")
    governance: ResolvedGovernance | None = Field(None, description="Its rules (0.2.0).")
    enforcement_result: EnforcementResult | None = Field(None, description="What the policies said (0.3.0).")
    quality_config: dict[str, Any] | None = Field(None, description="Quality settings (0.4.0).")
    environment: list[str] | None = Field(
        None, description="Names of the environment variables that dbt gets besides its own (0.10.0)."
    )

    @field_validator("metadata")
    @classmethod
    def _has_a_digest(cls, metadata: ArtifactMetadata, info: ValidationInfo) -> ArtifactMetadata:
        version = _numbers(info.data.get("version"))
        if version and version[:2] < FIRST_VERSION_WITH_DIGEST:
            return metadata
        if not is_digest(metadata.source_hash):
            problem = PydanticCustomError("source_hash", "must be sha256: and 64 hexadecimal digits")
            detail: InitErrorDetails = {
                "type": problem,
                "loc": ("source_hash",),
                "input": metadata.source_hash,
            }
            # With the place of the field in it, so that whoever reads the error is led there.
            raise ValidationError.from_exception_data(cls.__name__, [detail])
        return metadata

    @property
    def default_engine(self) -> str:
        """The engine where a model names none."""
        return self.plugins.compute.type if self.plugins else DEFAULT_ENGINE

    @classmethod
    def load(cls, source: Path | bytes | str | dict[str, Any]) -> CompiledArtifacts:
        """Read an artifact of this or an earlier version.

        A newer MINOR version loads too, with its unknown fields kept and an `UnknownFieldsWarning`.

        Args:
            source: A path, JSON text, or the parsed document.

        Raises:
            InputError: It is no artifact, or of a newer MAJOR version.
            OSError: The path cannot be read.
        """
        name = str(source) if isinstance(source, Path) else "compiled_artifacts.json"
        if isinstance(source, Path):
            source = source.read_bytes()
        if isinstance(source, bytes | str):
            try:
                source = json.loads(source)
            except ValueError as error:
                raise _refused(
                    name, f"the artifact is no JSON: {error}", "Compile the product again."
                ) from None
        if not isinstance(source, dict):
            raise _refused(name, "the artifact is no JSON object", "Compile the product again.")
        _check_version(name, source.get("version"))
        try:
            return cls.model_validate(source)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise _refused(name, f"{field}: {first['msg']}", "Compile the product again.", field) from None


def _check_version(name: str, version: Any) -> None:
    given = _numbers(version)
    if not given:
        raise _refused(
            name, f"the artifact's version is {version!r}", "Compile the product again.", "version"
        )
    known = _numbers(COMPILED_ARTIFACTS_VERSION)
    if given[0] > known[0]:
        raise _refused(
            name,
            f"the artifact has version {version}, this floe-dagster reads up to {known[0]}.x",
            "Upgrade floe-dagster, or compile the product with this version.",
            "version",
        )
    if given[:2] > known[:2]:
        warnings.warn(
            f"{name} has version {version}, newer than {COMPILED_ARTIFACTS_VERSION}: unknown fields are kept "
            "but have no effect; upgrade floe-dagster",
            UnknownFieldsWarning,
            stacklevel=3,
        )


def _numbers(version: Any) -> tuple[int, ...]:
    """Return MAJOR, MINOR and PATCH; nothing where it is no version."""
    found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version) if isinstance(version, str) else None
    return tuple(int(part) for part in found.groups()) if found else ()


def _refused(name: str, message: str, fix: str, field: str | None = None) -> InputError:
    return InputError(
        [Finding(code="artifact", severity="error", message=message, file=name, field=field, fix=fix)]
    )
