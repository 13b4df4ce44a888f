"""Microbatch models go on where their published tables end, in a process that runs dbt.

dbt computes a model's first batch from the clock and its `lookback`. It takes another one for all models at once alone
(`--event-time-start`), first builds included, which would lose the batches before it. So this process moves each model's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime

CONTINUE_FROM = "FLOE_BATCHES_FROM"
"""Environment variable of a dbt command: by dbt's unique id, where the batches of a published table end, as JSON."""


def continue_variable(ends: Mapping[str, datetime]) -> dict[str, str]:
    """Return the environment of a dbt command whose microbatch models go on where their tables end.

    Args:
        ends: By dbt's unique id; nothing where no model has a table.
    """
    if not ends:
        return {}
    return {CONTINUE_FROM: json.dumps({key: end.isoformat() for key, end in sorted(ends.items())})}


def continue_batches() -> None:
    """Let dbt begin with the batch that follows those of the table, less `lookback`, where it would begin later."""
    said = os.environ.get(CONTINUE_FROM)
    if not said:
        return
    from dbt.materializations.incremental.microbatch import MicrobatchBuilder

    ends = {key: datetime.fromisoformat(end) for key, end in json.loads(said).items()}
    by_the_clock = MicrobatchBuilder.build_start_time

    def build_start_time(self: MicrobatchBuilder, checkpoint: datetime | None) -> datetime:
        start: datetime = by_the_clock(self, checkpoint)
        end = ends.get(self.model.unique_id)
        if end is None or not self.is_incremental or self.event_time_start:
            return start
        going_on: datetime = by_the_clock(self, end)
        return min(start, going_on)

    MicrobatchBuilder.build_start_time = build_start_time  # type: ignore[method-assign]
