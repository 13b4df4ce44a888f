"""What the rest of the package needs to know of a compute engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from floe_dagster.schemas.base import Section

FLOE_HOME_REFERENCE = "{{ env_var('FLOE_HOME') }}"
"""Stands in a profile for the writable folder of the machine where dbt runs."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A compute engine: one module of this package, listed in its registry.

    Args:
        name: `plugins.compute.type`, and what dbt calls its adapter.
        plugin: Model of `plugins.compute` for this engine.
        dbt_output: Gives what `outputs` of the dbt profile holds, from the product's slug and the settings.
            Secrets are references to the environment; nothing in it depends on the machine that compiles. None
            where this version knows the engine, and runs no product on it.
    """

    name: str
    plugin: type[Section]
    dbt_output: Callable[[str, Mapping[str, Any]], dict[str, Any]] | None
