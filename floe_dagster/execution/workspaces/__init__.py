"""Where dbt builds: a workspace for each kind of engine."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.compilation.profiles import engine_profiles
from floe_dagster.execution.errors import WorkspaceError
from floe_dagster.execution.workspaces.base import Workspace, WorkspaceRequest, seen_by
from floe_dagster.home import FloeHome
from floe_dagster.schemas.artifacts import CompiledArtifacts
from floe_dagster.schemas.compute import ENGINES
from floe_dagster.schemas.compute.engine import compute_field


def open_workspace(
    slug: str,
    artifact: CompiledArtifacts,
    bundle: Bundle,
    assets: Mapping[str, dict[str, Any]],
    home: FloeHome,
    log: logging.Logger,
    *,
    engine: str,
    run_id: str,
) -> Workspace:
    """Return the workspace of one run on one engine; nothing is connected to yet.

    Args:
        slug: Of the product.
        artifact: The compiled artifact.
        bundle: It came from.
        assets: Of the asset index by unique id, each after those that it reads.
        home: The writable folder.
        log: Takes what people read.
        engine: One of the artifact's.
        run_id: Of the run.

    Raises:
        WorkspaceError: This version knows no workspace for the engine.
    """
    known = ENGINES.get(engine)
    if known is None:
        raise WorkspaceError(
            f"this version runs nothing on {engine}; name another engine in the manifest and compile again",
            transient=False,
        )
    plugin = artifact.plugins.engines()[engine] if artifact.plugins else None
    opened: Workspace = resolve_name(known.workspace)(
        WorkspaceRequest(
            slug=slug,
            engine=known,
            config=(plugin.config if plugin else None) or {},
            field=f"{compute_field(engine, artifact.default_engine)}.config",
            profiles=engine_profiles(artifact, slug, engine),
            bundle=bundle,
            assets=seen_by(engine, assets),
            home=home,
            log=log,
            run_id=run_id,
        )
    )
    return opened
