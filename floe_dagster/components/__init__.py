"""Components that `dg` lists."""

from floe_dagster.definitions.component import FloeProduct

__all__ = ["FloeProduct"]
