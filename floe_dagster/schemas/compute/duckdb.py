"""DuckDB: in the process of the run, its file a cache of what Iceberg holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from floe_dagster.schemas.base import Section
from floe_dagster.schemas.compute.engine import FLOE_HOME_REFERENCE, DataSource, Engine, ProfileText
from floe_dagster.schemas.forms import form

DEFAULT_THREADS = 4


class DuckDBConfig(Section):
    """DuckDB, in the process of the run."""

    path: ProfileText = Field(
        "{product_slug}.duckdb",
        description="DuckDB file, relative to FLOE_HOME/duckdb; {product_slug} is replaced.",
    )
    threads: Annotated[int, Field(ge=1, le=256)] = Field(DEFAULT_THREADS, description="dbt threads.")
    memory_limit: (
        Annotated[
            str,
            Field(
                pattern=form(r"^\d+(\.\d+)?\s*([KMGT]i?B)$", "a number with a unit, such as 4GB or 512MiB")
            ),
        ]
        | None
    ) = Field(
        None,
        description="DuckDB's memory_limit with its unit, for example 4GB; DuckDB's own default when absent.",
    )


class DuckDBCompute(Section):
    type: Literal["duckdb"] = Field(description="Engine.")
    version: str | None = Field(None, description="Version the platform asks for; informative.")
    config: DuckDBConfig = Field(default_factory=DuckDBConfig, description="Settings of DuckDB.")


def _dbt_output(slug: str, config: Mapping[str, Any]) -> dict[str, Any]:
    path = str(config.get("path") or "{product_slug}.duckdb").replace("{product_slug}", slug)
    if not os.path.isabs(path):
        path = f"{FLOE_HOME_REFERENCE}/duckdb/{path}"
    output: dict[str, Any] = {
        "type": "duckdb",
        "path": path,
        "schema": "main",
        "threads": config.get("threads") or DEFAULT_THREADS,
    }
    if config.get("memory_limit"):
        output["settings"] = {"memory_limit": config["memory_limit"]}
    return output


def _data_source(output: Mapping[str, Any]) -> DataSource:
    # Without the path of this machine.
    return DataSource(f"duckdb://{PurePosixPath(output['path']).name}")


DUCKDB = Engine(
    name="duckdb",
    title="DuckDB",
    plugin=DuckDBCompute,
    dialect="duckdb",
    adapter="dbt-duckdb",
    writes_catalog=False,
    workspace="floe_dagster.execution.workspaces.duckdb.workspace:DuckDBWorkspace",
    dbt_output=_dbt_output,
    data_source=_data_source,
    place=lambda output: str(output["path"]).replace(FLOE_HOME_REFERENCE, "FLOE_HOME"),
    iceberg_types={
        "UUID": "string",
        "JSON": "string",
        "TIMESTAMP_S": "timestamp",
        "TIMESTAMP_MS": "timestamp",
    },
)
