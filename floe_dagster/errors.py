"""The root of every error that floe-dagster raises itself."""

from __future__ import annotations


class FloeError(Exception):
    """Something that floe-dagster says itself; its message is for people."""
