"""The product's document: `floe.yaml`, `kind: FloeSpec`."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, AliasChoices, Field, model_validator

from floe_dagster.schemas.addresses import Repository
from floe_dagster.schemas.base import EnvironmentName, Name, NotAllowedError, Section, SemVer, slug_of
from floe_dagster.schemas.cron import Cron
from floe_dagster.schemas.governed import WithPolicySettings
from floe_dagster.schemas.manifest import GovernanceFields
from floe_dagster.schemas.table_layout import PartitionField, SortField

Tier = Literal["bronze", "silver", "gold"]
_DURATION = re.compile(r"([1-9][0-9]{0,9})([mhd])")
LONGEST_DURATION_DAYS = 36_500


def _check_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        import difflib

        by_lower = {zone.lower(): zone for zone in available_timezones()}
        near = difflib.get_close_matches(name.lower(), by_lower, 1)
        hint = f"; did you mean {by_lower[near[0]]}?" if near else ""
        raise ValueError(f"is no IANA time zone{hint}") from None
    return name


def _check_duration(text: str) -> str:
    if not _DURATION.fullmatch(text):
        raise ValueError("must be a whole number and m, h or d, for example 25h")
    if duration_seconds(text) > LONGEST_DURATION_DAYS * 86_400:
        raise NotAllowedError(
            "is too long", allowed=f"at most {LONGEST_DURATION_DAYS}d", fix="State a shorter time."
        )
    return text


def duration_seconds(text: str) -> int:
    """Return the seconds of a duration such as `90m`, `25h` or `2d`."""
    found = _DURATION.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no duration")
    return int(found.group(1)) * {"m": 60, "h": 3600, "d": 86_400}[found.group(2)]


def _check_partition(text: str) -> str:
    PartitionField.parse(text)
    return text


def _check_sort(text: str) -> str:
    SortField.parse(text)
    return text


PartitionExpression = Annotated[str, AfterValidator(_check_partition)]
SortExpression = Annotated[str, AfterValidator(_check_sort)]
TimeZone = Annotated[str, AfterValidator(_check_timezone)]
Duration = Annotated[str, AfterValidator(_check_duration)]


class ProductMetadata(Section):
    name: Name = Field(description="Name of the product, in kebab-case.")
    version: SemVer = Field(description="Semantic version of the product.")
    description: str | None = Field(None, description="What it is for.")
    owner: str = Field(description="Who answers for it: a team or an e-mail address.")
    labels: dict[str, str] | None = Field(None, description="Free labels; they become tags of the assets.")


class PlatformReference(Section):
    manifest: str = Field(description="Path of the platform's manifest, relative to this file.")


class TransformTable(Section):
    """How a model's Iceberg table is laid out and written."""

    partition_by: list[PartitionExpression] | None = Field(
        None,
        description="Iceberg partition fields: a column, year, month, day or hour (column), bucket(16, column), "
        "truncate(4, column).",
    )
    sort_by: list[SortExpression] | None = Field(
        None, description="Sort order: columns, each with asc or desc and nulls first or last."
    )
    write_mode: Literal["append", "overwrite", "upsert"] | None = Field(
        None,
        description="overwrite (when absent): the table becomes the model's rows. append: they are added. upsert: they "
        "take the place of those with the same key. Incremental models and snapshots write only what changed.",
    )
    key: list[str] | None = Field(None, description="Columns that identify a row (upsert).")
    properties: dict[str, str] | None = Field(
        None, description="Iceberg table properties, of those that the platform leaves to products."
    )
    expire_by: str | None = Field(
        None,
        description="Column with the time of a row: maintenance deletes rows older than default_ttl_hours, "
        "though never younger than data_retention_days.",
    )

    @model_validator(mode="after")
    def _upsert_needs_a_key(self) -> TransformTable:
        if self.write_mode == "upsert" and not self.key:
            raise ValueError("write_mode upsert needs key, the columns that identify a row")
        return self


class Transform(Section):
    """One dbt model of the product."""

    name: str = Field(description="Name of the dbt model.")
    tags: list[str] | None = Field(None, description="Tags of the asset.")
    tier: Tier | None = Field(None, description="bronze, silver or gold; the model's folder when absent.")
    depends_on: list[str] | None = Field(
        None,
        validation_alias=AliasChoices("dependsOn", "depends_on"),
        serialization_alias="dependsOn",
        description="Models that it reads; must agree with dbt's graph.",
    )
    compute: str | None = Field(
        None,
        description="Engine for this model, one of the platform's plugins.compute and plugins.additional_compute; the "
        "former when absent.",
    )
    table: TransformTable | None = Field(
        None, description="Layout of the Iceberg table, and how it is written."
    )


class Schedule(Section):
    cron: Cron = Field(
        description="When it runs: minute hour day month weekday; whatever Dagster takes, @daily and the like too."
    )
    timezone: TimeZone = Field("UTC", description="IANA time zone of the cron expression.")
    enabled: bool = Field(True, description="Whether the schedule is started.")


class Freshness(Section):
    """How old data may become."""

    warn_after: Duration | None = Field(None, description="Age that warns, for example 25h.")
    fail_after: Duration = Field(description="Age that fails, for example 26h.")

    @model_validator(mode="after")
    def _warning_comes_first(self) -> Freshness:
        if self.warn_after and duration_seconds(self.warn_after) >= duration_seconds(self.fail_after):
            raise ValueError("warn_after must be shorter than fail_after")
        return self


class ProductGovernance(GovernanceFields):
    """The product's own rules; they may only strengthen the platform's."""


class ProductInput(Section):
    product: str = Field(description="Name of another product.")
    model: str = Field(description="One of its published models.")


class ProductSpec(Section):
    """The product's document."""

    api_version: Literal["floe.dev/v1"] = Field(
        validation_alias=AliasChoices("apiVersion", "api_version"),
        serialization_alias="apiVersion",
        description="Version of the document format.",
    )
    kind: Literal["FloeSpec"] = Field(description="Always FloeSpec.")
    metadata: ProductMetadata = Field(description="Name, version, owner.")
    platform: PlatformReference | None = Field(None, description="The platform it runs on.")
    repository: Repository | None = Field(
        None,
        description="Address of its source repository; where it is http or https, findings and assets link there.",
    )
    transforms: list[Transform] | None = Field(
        None, description="The product's models; every model of the dbt project when absent."
    )
    schedule: Schedule | None = Field(None, description="When it runs.")
    governance: Annotated[ProductGovernance, WithPolicySettings()] | None = Field(
        None, description="Stricter rules than the platform's."
    )
    resources: str | None = Field(None, description="Name of one of the platform's resource_presets.")
    freshness: Freshness | None = Field(None, description="How old data may become.")
    environment: list[EnvironmentName] | None = Field(
        None,
        description="Names of environment variables that the dbt project reads (env_var); the platform's "
        "governance.environment has to allow each.",
    )
    execution: dict[str, str] | None = Field(None, description="Reserved.")
    inputs: list[ProductInput] | None = Field(None, description="Tables of other products; reserved.")

    @property
    def slug(self) -> str:
        """The name with `_` for `-`; also the dbt project's name and the Iceberg namespace."""
        return slug_of(self.metadata.name)
