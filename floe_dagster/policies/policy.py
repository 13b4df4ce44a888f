"""What a policy is: one class with its texts, its setting and its check."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from floe_dagster.findings import Finding
from floe_dagster.policies.model import Project, ResourceType
from floe_dagster.schemas.governed import Setting


class Policy(ABC):
    """One policy; it is an asset check of the dbt manifest, too.

    A class of a module of its own, and its line in `policies.POLICIES`; nothing else has to know it.
    """

    name: ClassVar[str]
    """In snake_case; the check's name, and that of its findings."""
    title: ClassVar[str]
    """For people."""
    description: ClassVar[str]
    """What it asks for, in one or two sentences of Markdown."""
    set_by: ClassVar[str] = "always"
    """What decides what it asks for, in Markdown."""
    setting: ClassVar[Setting | None] = None
    """The field of `governance` that it goes by; policies may share one."""
    further_settings: ClassVar[tuple[Setting, ...]] = ()
    """Other fields of `governance` that it goes by: it finds what is in force in `project.context.settings`."""
    looks_at: ClassVar[tuple[ResourceType, ...]] = ("model", "snapshot", "package")
    """Types of resources that it looks at: of others it gets none, and the page on policies says so."""

    @abstractmethod
    def check(self, project: Project, setting: Any) -> Iterator[Finding]:
        """Yield what breaks the rule; how severe that is, is not the policy's to say.

        Args:
            project: What of dbt's manifest policies look at.
            setting: What is in force of `setting`; None where no layer says anything.
        """

    def level(self, general: str, setting: Any) -> str:
        """Return the level that it runs at: off, warn or strict.

        Args:
            general: The level in force for all policies.
            setting: As `check` gets it.
        """
        return general
