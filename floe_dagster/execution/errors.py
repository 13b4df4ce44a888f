"""How a run ends that does not come to its end, in words for people, and whether another try may help."""

from __future__ import annotations

from collections.abc import Mapping

from floe_dagster.errors import FloeError


class RunError(FloeError):
    """A run ends here; what it has published until now stands.

    Args:
        message: What happened, and what to do.
        transient: Whether another try may help: the cause passes by itself. Where it is permanent, none does.
    """

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient


class DbtError(RunError):
    """dbt ended before it ran a node, executed what was not planned, or one of its hooks failed."""


class WorkspaceError(RunError):
    """The place where dbt builds is not to be had: another process holds it, or the engine does not answer or refuses."""


class RemoteError(RunError):
    """The catalog or the storage does not answer, or refuses."""


class FaultError(RunError):
    """The program is at fault, or a library that it uses; another try ends the same way."""

    def __init__(self, message: str) -> None:
        super().__init__(message, transient=False)


class WithheldError(RunError):
    """Tables that the run was asked for are not published; their last snapshots stand.

    Args:
        reasons: Why, by name of the table.
        transient: Whether another try may help.
    """

    def __init__(self, reasons: Mapping[str, str], *, transient: bool) -> None:
        lines = [f"- {name}: {reason}" for name, reason in reasons.items()]
        super().__init__(
            "not published, their last snapshots stand:\n" + "\n".join(lines), transient=transient
        )
        self.reasons = dict(reasons)
