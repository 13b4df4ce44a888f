"""dbt profiles: generated from the platform's compute, never checked in.

The profile in the artifact names nothing of the machine that compiled it: the DuckDB file lies under
`FLOE_HOME`, which dbt resolves where it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from floe_dagster.atomic import write_atomically
from floe_dagster.home import FloeHome
from floe_dagster.schemas.artifacts import CompiledArtifacts
from floe_dagster.schemas.compute import ENGINES
from floe_dagster.schemas.compute.engine import FLOE_HOME_REFERENCE

TARGET = "floe"


def build_dbt_profiles(slug: str, compute_type: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `profiles.yml`: one profile named like the dbt project, one target.

    Args:
        slug: The product's slug, which is the dbt project's name.
        compute_type: `plugins.compute.type`.
        config: `plugins.compute.config`.

    Raises:
        KeyError: There is no such engine; see `schemas.compute.ENGINES`.
    """
    output = ENGINES[compute_type].dbt_output(slug, config)
    return {slug: {"target": TARGET, "outputs": {TARGET: output}}}


def engine_profiles(artifact: CompiledArtifacts, slug: str, engine: str) -> dict[str, Any]:
    """Return the content of `profiles.yml` for one engine of a compiled product.

    Args:
        artifact: The compiled artifact.
        slug: The product's slug.
        engine: The default one, or a further one that models name.
    """
    if artifact.plugins is None or engine == artifact.plugins.compute.type:
        return artifact.dbt_profiles or {}
    return build_dbt_profiles(slug, engine, artifact.plugins.engines()[engine].config or {})


def write_profiles(dbt_profiles: Mapping[str, Any], folder: Path, home: FloeHome) -> Path:
    """Write `profiles.yml` for this machine into `folder` and return the folder, for `dbt --profiles-dir`.

    Args:
        dbt_profiles: As the artifact holds them.
        folder: Below `home`.
        home: Takes the place of `FLOE_HOME`; its folder for DuckDB files is made.

    Raises:
        OSError: The folder cannot be written.
    """
    text = yaml.safe_dump(_here(dict(dbt_profiles), str(home.path)), sort_keys=True)
    home.duckdb_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "profiles.yml", text.encode())
    return folder


def configured_memory_limit(dbt_profiles: Mapping[str, Any], slug: str) -> str | None:
    """Return the `memory_limit` that the manifest gives DuckDB; None where it gives none."""
    settings = dbt_profiles[slug]["outputs"][TARGET].get("settings") or {}
    limit = settings.get("memory_limit")
    return None if limit is None else str(limit)


def with_memory_limit(dbt_profiles: Mapping[str, Any], slug: str, limit: str) -> dict[str, Any]:
    """Return the profiles with another `memory_limit` for DuckDB: what this machine or container has room for."""
    settings = dbt_profiles[slug]["outputs"][TARGET].get("settings") or {}
    return _with(dbt_profiles, slug, settings={**settings, "memory_limit": limit})


def with_client_tag(dbt_profiles: Mapping[str, Any], slug: str, tag: str) -> dict[str, Any]:
    """Return the profiles with one more client tag for Trino, which finds a run's queries there.

    Args:
        dbt_profiles: As the artifact holds them.
        slug: The product's slug.
        tag: Without comma: Trino takes several tags as one text with commas between them.

    Raises:
        ValueError: The tag cannot be sent as it is.
    """
    if not tag.isascii() or not tag.isprintable() or not tag.strip() or "," in tag:
        raise ValueError(f"{tag!r} cannot be a client tag: printable ASCII without a comma is needed")
    tags = dbt_profiles[slug]["outputs"][TARGET].get("client_tags") or []
    return _with(dbt_profiles, slug, client_tags=[*tags, tag])


def _with(dbt_profiles: Mapping[str, Any], slug: str, **changes: Any) -> dict[str, Any]:
    profile = dbt_profiles[slug]
    output = {**profile["outputs"][TARGET], **changes}
    return {**dbt_profiles, slug: {**profile, "outputs": {**profile["outputs"], TARGET: output}}}


def _here(value: Any, home: str) -> Any:
    if isinstance(value, dict):
        return {key: _here(item, home) for key, item in value.items()}
    return value.replace(FLOE_HOME_REFERENCE, home) if isinstance(value, str) else value


def duckdb_file(dbt_profiles: Mapping[str, Any], slug: str, home: FloeHome) -> Path:
    """Return where the product's DuckDB file lies on this machine."""
    path = str(dbt_profiles[slug]["outputs"][TARGET]["path"])
    return Path(path.replace(FLOE_HOME_REFERENCE, str(home.path)))
