"""The platform's document: `manifest.yaml`, `kind: Manifest`."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from floe_dagster.schemas.addresses import Endpoint, Url
from floe_dagster.schemas.base import Days, EnforcementLevel, EnvironmentName, Hours, Name, Section, SemVer
from floe_dagster.schemas.forms import form
from floe_dagster.schemas.governed import WithPolicySettings
from floe_dagster.schemas.plugins import ApprovedPlugins, ManifestPlugins, PluginDefaults
from floe_dagster.schemas.resources import ResourcePreset
from floe_dagster.schemas.secrets import Secret

Share = Annotated[float, Field(ge=0, le=1, strict=False)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
NamePattern = Annotated[
    str,
    Field(
        pattern=form(
            r"^[a-z0-9*?-]{1,63}$", "the name of a product, or a pattern with * and ?, such as customer-*"
        )
    ),
]
PropertyPattern = Annotated[
    str,
    Field(
        pattern=form(
            r"^[A-Za-z0-9*?._-]{1,200}$",
            "the name of a table property, or a pattern with * and ?, such as write.parquet.*",
        )
    ),
]
HeaderName = Annotated[
    str,
    Field(
        pattern=form(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", "the name of an HTTP header, such as Authorization")
    ),
]


class ManifestMetadata(Section):
    name: Name = Field(description="Name of the platform or domain.")
    version: SemVer = Field(description="Semantic version of this manifest.")
    owner: str = Field(description="Who answers for it: a team or an e-mail address.")
    description: str | None = Field(None, description="What it is for.")


class SamplingRates(Section):
    """Share of traces that are kept, by environment."""

    dev: Share = Field(1.0, description="In development: dagster dev and the command line.")
    staging: Share = Field(0.5, description="In branch deployments of Dagster+.")
    prod: Share = Field(0.1, description="In Kubernetes and Dagster+.")


class BatchSettings(Section):
    """How spans are batched."""

    max_queue_size: Count = Field(2048, description="Spans that wait to be batched at most.")
    max_export_batch_size: Count = Field(512, description="Spans of one export at most.")
    schedule_delay_millis: Count = Field(1000, description="Milliseconds between exports.")
    export_timeout_millis: Count = Field(30000, description="Milliseconds that one answer may take.")


class TracingConfig(Section):
    enabled: bool = Field(True, description="Emit OpenTelemetry traces and metrics.")
    exporter: Literal["otlp", "console", "none"] = Field("otlp", description="Where traces and metrics go.")
    endpoint: Endpoint | None = Field(None, description="OTLP endpoint; http://localhost:4317 when absent.")
    protocol: Literal["grpc", "http"] | None = Field(
        None, description="OTLP protocol; http for port 4318 and /v1/traces, else grpc, when absent."
    )
    headers: dict[HeaderName, Secret] | None = Field(
        None, description="Headers sent along, by reference, for example Authorization: {env: OTLP_AUTH}."
    )
    certificate_file: str | None = Field(
        None, description="PEM file with the authorities to trust; the system's own when absent."
    )
    sampling: SamplingRates = Field(default_factory=SamplingRates, description="Share of traces kept.")
    batch: BatchSettings = Field(default_factory=BatchSettings, description="Batching of spans.")
    trace_url: (
        Annotated[
            str,
            Field(
                pattern=form(
                    r"^https?://[^\s]*\{trace_id\}[^\s]*$",
                    "an address that begins with http:// or https:// and holds {trace_id}",
                )
            ),
        ]
        | None
    ) = Field(None, description="Page of a trace, with {trace_id} in it; linked from every materialization.")


class LineageConfig(Section):
    enabled: bool = Field(True, description="Emit OpenLineage events.")
    transport: Literal["http", "console", "file", "noop"] = Field("http", description="How events leave.")
    endpoint: Url | None = Field(
        None, description="URL of the lineage backend; that of plugins.lineage_backend when absent."
    )
    file: str | None = Field(
        None,
        description="File of transport: file, absolute or relative to FLOE_HOME; lineage.jsonl when absent.",
    )
    api_key: Secret | None = Field(None, description="Sent as bearer token, by reference.")
    certificate_file: str | None = Field(
        None, description="PEM file with the authorities to trust; the system's own when absent."
    )
    dataset_url: (
        Annotated[
            str,
            Field(
                pattern=form(
                    r"^https?://[^\s]*\{name\}[^\s]*$",
                    "an address that begins with http:// or https:// and holds {name}",
                )
            ),
        ]
        | None
    ) = Field(
        None,
        description="Page of a dataset, with {namespace} and {name} in it; linked from every materialization.",
    )


class LoggingConfig(Section):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Lowest level that is logged."
    )
    format: Literal["json", "text"] = Field("json", description="One JSON object a line, or text.")


class ManifestObservability(Section):
    """Traces, lineage and logs for everything that runs."""

    tracing: TracingConfig = Field(default_factory=TracingConfig, description="OpenTelemetry traces.")
    lineage: LineageConfig = Field(default_factory=LineageConfig, description="OpenLineage events.")
    logging: LoggingConfig = Field(default_factory=LoggingConfig, description="Logs.")


class GovernanceFields(Section):
    """Rules that both documents may state; each field is merged by its rule (`compilation.merge_rules`).

    Each policy brings the fields that it goes by (`policies`).
    """

    policy_enforcement_level: EnforcementLevel | None = Field(
        None, description="off: policies pass and say so. warn: they show. strict: they block."
    )
    audit_logging: Literal["enabled", "disabled"] | None = Field(
        None, description="Keep an audit log in FLOE_HOME/audit: who compiled, ran, published, dropped what."
    )
    data_retention_days: Days | None = Field(None, description="Days data is kept at least, 1 to 36,500.")
    default_ttl_hours: Hours | None = Field(None, description="Hours until data counts as expired.")
    snapshot_keep_last: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Iceberg snapshots of a table that are kept at least."
    )
    stale_table_recovery_mode: Literal["strict", "repair"] | None = Field(
        None, description="What happens to a table that somebody else changed."
    )
    schema_evolution: Literal["allow", "additive", "refuse"] | None = Field(
        None, description="Which schema changes publication accepts."
    )


class Bound(Section):
    """Between which numbers a product's own has to lie."""

    min: Annotated[int, Field(ge=1)] | None = Field(None, description="The least that is allowed.")
    max: Annotated[int, Field(ge=1)] | None = Field(None, description="The most that is allowed.")

    @model_validator(mode="after")
    def _is_not_empty(self) -> Bound:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is greater than max {self.max}")
        return self


class Bounds(Section):
    """Numbers of which neither side is stricter by itself; a name here is the field's in `governance`."""

    data_retention_days: Bound | None = Field(None, description="Of data_retention_days.")
    default_ttl_hours: Bound | None = Field(None, description="Of default_ttl_hours.")
    snapshot_keep_last: Bound | None = Field(None, description="Of snapshot_keep_last.")


def _day(value: Any) -> Any:
    """Return the day that YAML or a person wrote as text."""
    if isinstance(value, datetime.datetime):
        return value.date()
    if isinstance(value, str):
        try:
            return datetime.date.fromisoformat(value)
        except ValueError:
            raise ValueError("must be a day such as 2027-01-31") from None
    return value


Day = Annotated[datetime.date, BeforeValidator(_day)]
Words = Annotated[str, Field(min_length=3)]


class Exemption(Section):
    """What one policy does not ask of one model, until a day."""

    policy: Annotated[str, Field(min_length=1)] = Field(description="Name of the policy, such as naming.")
    model: Annotated[str, Field(min_length=1)] = Field(
        description="Name of what is exempt, as findings give it: of a model, seed, snapshot, source, macro, test, package or "
        "hook, or the path of a file below the product."
    )
    product: Name | None = Field(
        None, description="The product that has it; every product that runs on the platform when absent."
    )
    reason: Words = Field(description="Why it is exempt.")
    owner: Words = Field(description="Who has decided it: a team or an e-mail address.")
    until: Day = Field(description="Last day on which it holds, such as 2027-01-31.")

    def is_over(self, today: datetime.date) -> bool:
        """Tell whether its last day has passed.

        Args:
            today: The day that counts.
        """
        return today > self.until


class ManifestGovernance(GovernanceFields):
    """The platform's rules."""

    is_the_platforms: ClassVar[bool] = True
    """Settings of policies that only a platform may state belong here."""

    products: list[NamePattern] | None = Field(
        None,
        description="Products that may use this manifest: names, or patterns with * and ?; every product when absent. Over "
        "several layers, a product has to be in the list of every layer that has one.",
    )
    bounds: Bounds | None = Field(None, description="Between which numbers products may choose.")
    table_properties: list[PropertyPattern] | None = Field(
        None,
        description="Iceberg table properties that products may set besides those that are harmless: names, or patterns with "
        "* and ?. Over several layers, a property has to be in the list of every layer that has one.",
    )

    environment: list[EnvironmentName] | None = Field(
        None,
        description="Names of environment variables that products may read; none when absent. Over several layers, a name "
        "has to be in the list of every layer that has one.",
    )
    exemptions: list[Exemption] | None = Field(
        None,
        description="What single policies do not ask of single models, each with a reason, an owner and a last day.",
    )


class PlatformManifest(BaseModel):
    """The platform's document. Unknown keys at its top are kept and warned about."""

    model_config = ConfigDict(extra="allow", strict=True, populate_by_name=True, defer_build=True)

    api_version: Literal["floe.dev/v1"] = Field(
        validation_alias=AliasChoices("apiVersion", "api_version"),
        serialization_alias="apiVersion",
        description="Version of the document format.",
    )
    kind: Literal["Manifest"] = Field(description="Always Manifest.")
    metadata: ManifestMetadata = Field(description="Name, version, owner.")
    scope: Literal["enterprise", "domain"] | None = Field(
        None, description="enterprise: the root of a chain. domain: inherits from parent_manifest."
    )
    parent_manifest: str | None = Field(
        None,
        validation_alias=AliasChoices("parent_manifest", "parentManifest"),
        description="Path of the parent, relative to this file.",
    )
    plugins: ManifestPlugins = Field(
        default_factory=ManifestPlugins, description="What the platform runs on."
    )
    observability: ManifestObservability | None = Field(None, description="Traces, lineage, logs.")
    governance: Annotated[ManifestGovernance, WithPolicySettings()] | None = Field(
        None, description="The platform's rules."
    )
    approved_plugins: ApprovedPlugins | None = Field(
        None,
        validation_alias=AliasChoices("approved_plugins", "approvedPlugins"),
        description="Plugin types that may be used, by category.",
    )
    defaults: PluginDefaults | None = Field(None, description="Default plugin type by category.")
    resource_presets: dict[str, ResourcePreset] | None = Field(
        None,
        validation_alias=AliasChoices("resource_presets", "resourcePresets"),
        description="CPU and memory of a run's pod, by name.",
    )
