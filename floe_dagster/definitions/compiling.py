"""Compilation with Dagster asked whether it can serve the outcome: what commands and compile assets call.

`floe_dagster.compilation` knows no Dagster; here it gets one. Dagster is imported when it is asked: where nothing changed,
nobody asks.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial, update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING

from floe_dagster.compilation import pipeline
from floe_dagster.compilation.orchestrator import ScheduleProblem
from floe_dagster.schemas.cron import CRON_ALLOWED, CRON_FIELDS, is_plain

if TYPE_CHECKING:
    from floe_dagster.compilation.bundle import Bundle
    from floe_dagster.home import FloeHome

_LONGEST_REASON = 400
_SOME_TIME = 1_704_067_200.0
"""From where the next time of a schedule is looked for: of the same documents the same is found on any day."""


class DagsterOrchestrator:
    """Dagster, as compilation asks it."""

    def schedule_problem(self, cron: str, timezone: str) -> ScheduleProblem | None:
        """Return what Dagster has against a schedule; see `Orchestrator.schedule_problem`."""
        if is_plain(cron):
            return None
        problem, warned = _asked(cron, timezone)
        if problem is not None:
            faulty = list(_faulty_fields(cron))
            named = f" because of the {' and the '.join(faulty)}" if faulty else ""
            return ScheduleProblem(
                f"is no schedule to Dagster{named}",
                CRON_ALLOWED,
                "Correct the expression. Names are JAN to DEC and SUN to SAT; a step is a number from 1 on.",
            )
        if not _fires(cron, timezone):
            return ScheduleProblem(
                "never fires: no date fits it",
                "an expression that fits some date",
                "Choose a day that the month has; L is the last day of a month.",
            )
        if warned:
            return ScheduleProblem(
                "has a step that is greater than its field: Dagster fires at the field's first value alone, which may be "
                "more often than the step says",
                "steps within the field, for example */30 of the minutes",
                "Write a smaller step, or name the values.",
                severity="warning",
            )
        return None

    def loading_problem(
        self, bundle: Bundle, product_dir: Path, manifest: Path | None, home: FloeHome
    ) -> str | None:
        """Build the product's whole location and have Dagster validate it; see `Orchestrator.loading_problem`."""
        import dagster as dg

        from floe_dagster.definitions.location import build_location_definitions

        try:
            definitions = build_location_definitions(bundle.slug, product_dir, manifest, home, bundle)
            dg.Definitions.validate_loadable(definitions)
        except Exception as error:  # whatever it is, the location would end with it
            reason = " ".join(str(error).split()) or type(error).__name__
            return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]} …"
        return None


compile_product = partial(pipeline.compile_product, orchestrator=DagsterOrchestrator())
"""`compilation.pipeline.compile_product`, with Dagster asked."""
validate_product = partial(pipeline.validate_product, orchestrator=DagsterOrchestrator())
"""`compilation.pipeline.validate_product`, with Dagster asked."""
for _named in (compile_product, validate_product):
    # So `help` of what `floe_dagster` exports says their arguments.
    update_wrapper(_named, _named.func)


def _asked(cron: str, timezone: str) -> tuple[str | None, bool]:
    """Make a schedule; return why Dagster refuses it, and whether it warned."""
    import dagster as dg

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            dg.ScheduleDefinition(
                name="asked", job_name="asked", cron_schedule=cron, execution_timezone=timezone
            )
        except Exception as error:
            return str(error) or type(error).__name__, False
    return None, any("cron schedule with an interval" in str(each.message) for each in warned)


def _faulty_fields(cron: str) -> Iterator[str]:
    parts = cron.split()
    if len(parts) != len(CRON_FIELDS):
        return
    for position, part in enumerate(parts):
        alone = ["*"] * len(parts)
        alone[position] = part
        if _asked(" ".join(alone), "UTC")[0] is not None:
            yield f"{CRON_FIELDS[position][0]} {part}"


def _fires(cron: str, timezone: str) -> bool:
    # What the daemon takes a schedule's next time from; nothing public tells it.
    from floe_dagster.definitions.dagster_private import schedule_execution_time_iterator

    try:
        next(schedule_execution_time_iterator(_SOME_TIME, cron, timezone))
    except Exception:  # each library below says in its own way that it found no date
        return False
    return True
