"""What can go wrong on the way to an engine, in words for who wrote the manifest."""

from __future__ import annotations

from floe_dagster.errors import FloeError


class EngineError(FloeError):
    """The engine does not answer, or refuses.

    Args:
        message: Names the setting in the manifest, and never a secret.
        transient: Trying again may help.
    """

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient
