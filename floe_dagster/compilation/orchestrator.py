"""What compilation asks of the orchestrator: whether it can serve what was compiled.

Compilation does not know Dagster. Who compiles hands in an `Orchestrator`; commands and compile assets do so through
`floe_dagster.definitions.compiling`. A copy of Dagster's rules would agree with Dagster until one of the two changes; the
library that Dagster checks cron expressions with is part of Dagster, with changes of its own. So Dagster itself is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from floe_dagster.compilation.documents import Document
from floe_dagster.findings import Finding, Severity

if TYPE_CHECKING:
    from floe_dagster.compilation.bundle import Bundle
    from floe_dagster.compilation.inheritance import ManifestChain
    from floe_dagster.compilation.validation import Parsed
    from floe_dagster.home import FloeHome
    from floe_dagster.schemas.product import ProductSpec

DEFAULT_SCHEDULE = ("plugins", "orchestrator", "config", "default_schedule")


@dataclass(frozen=True, slots=True)
class ScheduleProblem:
    """Why a schedule does not do what it says.

    Args:
        message: What is wrong; stands after the field's name.
        allowed: What could stand there.
        fix: What to do.
        severity: `warning` where the schedule can be served all the same.
    """

    message: str
    allowed: str
    fix: str
    severity: Severity = "error"


class Orchestrator(Protocol):
    """Who serves compiled products."""

    def schedule_problem(self, cron: str, timezone: str) -> ScheduleProblem | None:
        """Return what is wrong with a schedule; None where it can be served and fires at some time.

        Args:
            cron: Its cron expression.
            timezone: IANA time zone.
        """
        ...

    def loading_problem(
        self, bundle: Bundle, product_dir: Path, manifest: Path | None, home: FloeHome
    ) -> str | None:
        """Build and check what a code location would serve; return why it cannot, None where it can.

        Args:
            bundle: What was compiled.
            product_dir: The product's folder.
            manifest: Platform manifest in place of the one that `floe.yaml` names.
            home: The writable folder.
        """
        ...


def check_schedules(
    spec: Parsed[ProductSpec], chain: ManifestChain | None, orchestrator: Orchestrator
) -> list[Finding]:
    """Return what is wrong with the product's schedule and with the default schedule of each manifest.

    Args:
        spec: The product spec.
        chain: Its manifests; None where there are none.
        orchestrator: Is asked about each schedule.
    """
    findings: list[Finding] = []
    if spec.value is not None and spec.value.schedule is not None:
        schedule = spec.value.schedule
        problem = orchestrator.schedule_problem(schedule.cron, schedule.timezone)
        findings += _schedule_findings(problem, spec.document, ("schedule", "cron"), schedule.cron)
    for layer in chain.layers if chain else ():
        plugin = layer.value.plugins.orchestrator if layer.value is not None else None
        cron = plugin.config.default_schedule if plugin is not None else None
        if cron is not None:
            problem = orchestrator.schedule_problem(cron, "UTC")
            findings += _schedule_findings(problem, layer.document, DEFAULT_SCHEDULE, cron)
    return findings


def _schedule_findings(
    problem: ScheduleProblem | None, document: Document, path: tuple[str, ...], cron: str
) -> Iterable[Finding]:
    if problem is None:
        return
    line, column = document.position(path)
    yield Finding(
        code="schedule",
        severity=problem.severity,
        message=f"{path[-1]} {problem.message}",
        file=document.display,
        line=line,
        column=column,
        field=".".join(path),
        found=repr(cron),
        allowed=problem.allowed,
        fix=problem.fix,
    )


def cannot_be_served(problem: str, spec_file: str) -> Finding:
    """Return the finding for what no other check explains.

    Args:
        problem: What the orchestrator says.
        spec_file: `floe.yaml`, for display.
    """
    return Finding(
        code="cannot-be-served",
        severity="error",
        message=f"Dagster cannot serve what was compiled: {problem}",
        file=spec_file,
        line=1,
        fix="Change what the message names, in floe.yaml or in the dbt project. The last good state stays served.",
    )
