"""Where dbt builds: a workspace for each kind of engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.definitions.workspaces.base import Workspace
from floe_dagster.definitions.workspaces.duckdb import DuckDBWorkspace
from floe_dagster.home import FloeHome
from floe_dagster.schemas.artifacts import CompiledArtifacts


def open_workspace(
    slug: str,
    artifact: CompiledArtifacts,
    bundle: Bundle,
    assets: Mapping[str, dict[str, Any]],
    home: FloeHome,
    log: Any,
    *,
    run_id: str,
) -> Workspace:
    """Return the workspace of one run; nothing is connected to yet.

    Args:
        slug: Of the product.
        artifact: The compiled artifact.
        bundle: It came from.
        assets: Of the asset index by unique id, each after those that it reads.
        home: The writable folder.
        log: A logger.
        run_id: Of the Dagster run.

    Raises:
        dg.Failure: This version knows no workspace for the artifact's engine.
    """
    engine = artifact.plugins.compute.type if artifact.plugins else "duckdb"
    if engine == "duckdb":
        return DuckDBWorkspace(slug, assets, artifact.dbt_profiles or {}, home, log)
    if engine == "trino":
        # Its client is not installed everywhere.
        from floe_dagster.definitions.workspaces.trino import TrinoWorkspace

        return TrinoWorkspace(slug, artifact, bundle, assets, home, log, run_id=run_id)
    raise dg.Failure(
        f"this version runs no product on {engine}; name another engine in plugins.compute.type and compile again",
        allow_retries=False,
    )
