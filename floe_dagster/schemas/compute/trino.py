"""Trino: a distributed engine that reads and writes the catalog's Iceberg tables itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from floe_dagster.schemas.base import Section
from floe_dagster.schemas.compute.engine import Engine
from floe_dagster.schemas.secrets import Secret


class TrinoConfig(Section):
    """A Trino cluster."""

    host: str = Field(description="Host name of the coordinator.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(8080, description="Port of the coordinator.")
    catalog: str = Field(description="Trino catalog that holds the Iceberg tables.")
    user: str | None = Field(None, description="User name; no secret.")
    password: Secret | None = Field(None, description="Password, by reference.")
    http_scheme: Literal["http", "https"] = Field("http", description="http or https.")
    session_properties: dict[str, str] | None = Field(None, description="Trino session properties.")
    threads: Annotated[int, Field(ge=1, le=256)] = Field(4, description="dbt threads.")


class TrinoCompute(Section):
    type: Literal["trino"] = Field(description="Engine.")
    version: str | None = Field(None, description="Version the platform asks for; informative.")
    config: TrinoConfig = Field(description="Settings of Trino.")


TRINO = Engine(name="trino", plugin=TrinoCompute, dbt_output=None)
