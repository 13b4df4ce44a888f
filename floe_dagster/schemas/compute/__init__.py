"""Compute engines: what dbt runs on. Another engine is one more module, and its line in `ENGINES`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from floe_dagster.schemas.compute.duckdb import DUCKDB, DuckDBCompute
from floe_dagster.schemas.compute.engine import Engine
from floe_dagster.schemas.compute.trino import TRINO, TrinoCompute

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (DUCKDB, TRINO)}
"""By `plugins.compute.type`."""
DEFAULT_ENGINE = DUCKDB.name
"""Where a manifest says nothing; also that of artifacts that are older than plugins."""

if TYPE_CHECKING:
    Compute = DuckDBCompute | TrinoCompute
else:
    Compute = Annotated[
        Union[tuple(engine.plugin for engine in ENGINES.values())],  # noqa: UP007
        Field(discriminator="type"),
    ]


def supported_engines() -> list[str]:
    """Return the engines that products can run on in this environment, by name: those whose adapter is installed."""
    return sorted(name for name, engine in ENGINES.items() if engine.is_installed)
