"""Trino, as runs reach it."""

from __future__ import annotations

from floe_dagster.engines.trino.access import TrinoAccess

__all__ = ["TrinoAccess"]
