"""What the rest of the package needs to know of a compute engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Annotated, Any

from pydantic import AfterValidator

from floe_dagster.schemas.base import NotAllowedError, Section

FLOE_HOME_REFERENCE = "{{ env_var('FLOE_HOME') }}"
"""Stands in a profile for the writable folder of the machine where dbt runs."""

STATEFUL = frozenset({"incremental", "snapshot"})
"""Materializations whose next content depends on their last one."""


def check_profile_text(text: str) -> str:
    """Return a setting that goes into dbt's profile as it is.

    Args:
        text: As the manifest has it.

    Raises:
        NotAllowedError: dbt would render it; this process would use it as it stands.
    """
    opening = next((mark for mark in ("{{", "{%", "{#") if mark in text), None)
    if opening is not None:
        raise NotAllowedError(
            f"holds {opening}, which dbt renders as Jinja",
            allowed="text without {{, {% and {#",
            fix="Write the value itself; only secrets come from the environment, as {env: NAME}.",
        )
    return text


ProfileText = Annotated[str, AfterValidator(check_profile_text)]
"""Text that reaches dbt's profile, which dbt renders, and that this process uses as it stands."""


@dataclass(frozen=True, slots=True)
class ProjectOverlay:
    """What the dbt project that is compiled gets besides the product's own files.

    Args:
        configs: Settings by section of `dbt_project.yml` (`models`, `seeds`); what the project says itself wins.
        macros: Jinja; they override those of the adapter.
        reserved: Further names of macros that the project must not have: with them, those above would not be asked.
    """

    configs: Mapping[str, Mapping[str, Any]]
    macros: str
    reserved: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DataSource:
    """What OpenLineage calls an engine's relations.

    Args:
        namespace: Of all of them.
        database: Where published tables stand under their own names; None where the engine only computes them.
    """

    namespace: str
    database: str | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """A compute engine: one module of this package, listed in its registry.

    Nothing else in floe-dagster asks for an engine by its name. What knows Dagster, or needs the engine's client, is named as
    `module:attribute` and imported when it is used.

    Args:
        name: `plugins.compute.type`.
        title: Its name for people.
        plugin: Model of `plugins.compute` for this engine.
        dialect: What sqlglot calls its SQL.
        adapter: Distribution of its dbt adapter.
        overlay: Gives what the dbt project needs besides its files, from `partition_by` and `sort_by` by model; None where
            it needs nothing.
        extra: Extra of floe-dagster that brings the adapter; None where it is always there.
        writes_catalog: It writes the platform's Iceberg catalog itself; else this process publishes what it computed.
        workspace: Class that a run builds with: a `execution.workspaces.base.Workspace` made from a `WorkspaceRequest`.
        data_source: Gives what its relations are called in OpenLineage, from what `dbt_output` gave.
        place: Gives where relations stand before they are published, for people, from the same.
        dbt_output: Gives what `outputs` of the dbt profile holds, from the product's slug and the settings.
            Secrets are references to the environment; nothing in it depends on the machine that compiles.
        check: Function that `platform check` asks besides, like `platform.trino.check_trino`; None where there is nothing that
            could be away.
        iceberg_types: Types of Iceberg by sqlglot's types, where they are this engine's own.
        needs: Gives what has to stand outside of floe-dagster, from slug and settings; None where nothing has to.
        catalog_settings: Settings that decide which catalog the engine writes.
    """

    name: str
    title: str
    plugin: type[Section]
    dialect: str
    adapter: str
    writes_catalog: bool
    workspace: str
    dbt_output: Callable[[str, Mapping[str, Any]], dict[str, Any]]
    data_source: Callable[[Mapping[str, Any]], DataSource]
    place: Callable[[Mapping[str, Any]], str]
    overlay: Callable[[Mapping[str, Mapping[str, Sequence[str]]]], ProjectOverlay] | None = None
    extra: str | None = None
    check: str | None = None
    iceberg_types: Mapping[str, str] = field(default_factory=dict)
    needs: Callable[[str, Mapping[str, Any]], str] | None = None
    catalog_settings: frozenset[str] = frozenset()

    @property
    def is_installed(self) -> bool:
        """Whether this environment has its dbt adapter."""
        try:
            metadata.distribution(self.adapter)
        except metadata.PackageNotFoundError:
            return False
        return True


def compute_field(engine: str, default: str) -> str:
    """Return where the manifest has the settings of an engine.

    Args:
        engine: Its name.
        default: `plugins.compute.type`.
    """
    return "plugins.compute" if engine == default else f"plugins.additional_compute ({engine})"


def audit_schema(slug: str) -> str:
    """Return the schema where an engine that writes the catalog builds what is not published yet."""
    return f"floe_audit_{slug}"


def is_audit_schema(schema: str, slug: str) -> bool:
    """Whether a schema is the product's own place to build in: that, or the one of a custom schema of dbt.

    Slugs that are built here have no two underscores in a row (`check_built`), so the custom schemas of one product are
    never another product's.

    Args:
        schema: As dbt has made it.
        slug: Of the product.
    """
    own = audit_schema(slug)
    return schema == own or schema.startswith(f"{own}__")
