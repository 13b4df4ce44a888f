"""The platform's plugins: compute, orchestrator, catalog, storage, lineage backend; a typed config each."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator

from floe_dagster.schemas.addresses import Url, is_loopback
from floe_dagster.schemas.base import NotAllowedError, Section
from floe_dagster.schemas.catalog_types import DEFAULT_CATALOG_TYPE, Catalog
from floe_dagster.schemas.compute import DEFAULT_ENGINE, Compute
from floe_dagster.schemas.cron import Cron
from floe_dagster.schemas.storage_types import DEFAULT_STORAGE_TYPE, Storage


class DagsterConfig(Section):
    default_schedule: Cron | None = Field(
        None, description="Cron expression for products without a schedule; no schedule when absent."
    )


class DagsterOrchestrator(Section):
    type: Literal["dagster"] = Field(description="Orchestrator.")
    version: str | None = Field(None, description="Version the platform asks for; informative.")
    config: DagsterConfig = Field(default_factory=DagsterConfig, description="Settings of Dagster.")


class MarquezConfig(Section):
    url: Url = Field(description="Base URL of the lineage backend.")
    drain_timeout: Annotated[float, Field(ge=0, le=600, strict=False)] = Field(
        10.0, description="Seconds a run waits at its end for events to leave."
    )
    allow_insecure_http: bool = Field(False, description="Accept http:// beyond the loopback address.")

    @model_validator(mode="after")
    def _is_encrypted(self) -> MarquezConfig:
        address = urlsplit(self.url)
        if address.scheme == "http" and not is_loopback(address.hostname) and not self.allow_insecure_http:
            raise NotAllowedError(
                "is not encrypted",
                allowed="https://, and http:// to this machine",
                fix="Use https://, or set allow_insecure_http: true.",
                at=("url",),
            )
        return self


class MarquezBackend(Section):
    type: Literal["marquez"] = Field(description="Lineage backend.")
    version: str | None = Field(None, description="Version the platform asks for; informative.")
    config: MarquezConfig = Field(description="Settings of the lineage backend.")


class ManifestPlugins(Section):
    """What the platform runs on."""

    compute: Compute | None = Field(None, description="Engine that dbt runs on; duckdb when absent.")
    additional_compute: list[Compute] | None = Field(
        None, description="Further engines, each once: transforms[].compute may name them for single models."
    )
    orchestrator: DagsterOrchestrator | None = Field(None, description="Orchestrator; dagster when absent.")
    catalog: Catalog | None = Field(None, description="Iceberg catalog; sql under FLOE_HOME when absent.")
    storage: Storage | None = Field(None, description="Storage of the tables; local when absent.")
    lineage_backend: MarquezBackend | None = Field(None, description="Where lineage events are shown.")

    @field_validator("additional_compute")
    @classmethod
    def _names_each_engine_once(
        cls, value: list[Compute] | None, info: ValidationInfo
    ) -> list[Compute] | None:
        default = info.data.get("compute")
        seen = [default.type] if default is not None else []
        for position, engine in enumerate(value or ()):
            if engine.type in seen:
                raise NotAllowedError(
                    f"names {engine.type} again",
                    allowed="each engine once, in compute or in additional_compute",
                    fix="Remove one of the two: an engine has one config.",
                    at=(position, "type"),
                )
            seen.append(engine.type)
        return value


PLUGIN_CATEGORIES = tuple(name for name in ManifestPlugins.model_fields if name != "additional_compute")
"""Categories that hold one plugin each."""


class ApprovedPlugins(Section):
    """Plugin types that may be used, by category; a category that is left out is not limited."""

    compute: list[str] | None = Field(
        None, description="Engines, further ones too, for example [duckdb, trino]."
    )
    orchestrator: list[str] | None = Field(None, description="Orchestrators.")
    catalog: list[str] | None = Field(None, description="Iceberg catalogs, for example [polaris].")
    storage: list[str] | None = Field(None, description="Storages, for example [s3].")
    lineage_backend: list[str] | None = Field(None, description="Lineage backends.")

    @model_validator(mode="before")
    @classmethod
    def _limits_what_it_names(cls, value: Any) -> Any:
        """Refuse what would be read as no limit at all."""
        for category, types in value.items() if isinstance(value, dict) else ():
            if category == "additional_compute":
                raise NotAllowedError(
                    "is no category",
                    allowed=", ".join(sorted(PLUGIN_CATEGORIES)),
                    fix="Approve further engines under compute, with the default one.",
                    at=(category,),
                )
            if category in cls.model_fields and types is None:
                raise NotAllowedError(
                    "names no types",
                    allowed="a list of types; [] approves none",
                    fix="Name the types, or leave the category out: it is not limited then.",
                    at=(category,),
                )
        return value

    def by_category(self) -> dict[str, list[str]]:
        """Return the types of each category that is limited."""
        return self.model_dump(exclude_none=True)


class PluginDefaults(Section):
    """Types of plugins that `plugins` does not name, by category."""

    compute: str = Field(DEFAULT_ENGINE, description="Engine.")
    orchestrator: str = Field("dagster", description="Orchestrator.")
    catalog: str = Field(DEFAULT_CATALOG_TYPE, description="Iceberg catalog; `sql` is the embedded one.")
    storage: str = Field(DEFAULT_STORAGE_TYPE, description="Storage.")
