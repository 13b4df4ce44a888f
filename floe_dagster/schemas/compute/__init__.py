"""Compute engines: what dbt runs on. Another engine is one more module, and its line in `ENGINES`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from floe_dagster.schemas.compute.duckdb import DUCKDB, DuckDBCompute
from floe_dagster.schemas.compute.engine import Engine
from floe_dagster.schemas.compute.trino import TRINO, TrinoCompute
from floe_dagster.schemas.kinds import ENGINES_GROUP, Kinds, OneOf, plugin_problem

ENGINES: Kinds[Engine] = Kinds(ENGINES_GROUP, Engine, (DUCKDB, TRINO), plugin_problem)
"""By `plugins.compute.type`; further ones of installed distributions, too."""
DEFAULT_ENGINE = DUCKDB.name
"""Where a manifest says nothing; also that of artifacts that are older than plugins."""

if TYPE_CHECKING:
    Compute = DuckDBCompute | TrinoCompute
else:
    Compute = Annotated[Any, OneOf(ENGINES)]


def supported_engines() -> list[str]:
    """Return the engines that products can run on in this environment, by name: those whose adapter is installed."""
    return sorted(name for name, engine in ENGINES.items() if engine.is_installed)
