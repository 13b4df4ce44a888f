"""What Dagster knows of the earlier attempts of a run: its event log, for `execution/resume.py`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

CARRIED_OVER = "floe/carried_over_from_run"
"""Metadata of a check result that an earlier attempt has recorded: by which run."""


def is_resumed(context: dg.AssetExecutionContext) -> bool:
    """Return whether the step is a retry, or the run continues a failed one.

    A re-execution of all steps is neither: a person asked for everything again.

    Args:
        context: Of the step.
    """
    run = context.run
    continued = run.parent_run_id is not None and run.step_keys_to_execute is not None
    return context.retry_number > 0 or continued or run.tags.get("dagster/is_resume_retry") == "true"


class RecordedAttempts:
    """What the event log holds of the run that a step belongs to; see `EarlierAttempts`.

    Args:
        context: Of the step.
        specs: Asset specs by dbt's unique id.
        checks: Check specs by dbt's unique id.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        specs: Mapping[str, dg.AssetSpec],
        checks: Mapping[str, dg.AssetCheckSpec],
    ) -> None:
        self._context = context
        self._specs = specs
        self._checks = checks
        self._found: dict[str, dg.AssetCheckResult] = {}

    def recorded(self, snapshots: Mapping[str, int]) -> set[str]:
        """See `EarlierAttempts`: those whose last materialization names the snapshot."""
        events = self._context.instance.event_log_storage.get_latest_materialization_events(
            [self._specs[key].key for key in snapshots]
        )
        recorded = set()
        for key, snapshot in snapshots.items():
            event = events.get(self._specs[key].key)
            found = event.asset_materialization if event else None
            if found and str(snapshot) == str(
                getattr(found.metadata.get("iceberg/snapshot_id"), "value", None)
            ):
                recorded.add(key)
        return recorded

    def checked(self, tests: Collection[str]) -> set[str]:
        """See `EarlierAttempts`: those whose last result an attempt of this run has recorded."""
        run = self._context.run
        group = {run.run_id, run.root_run_id, run.parent_run_id} - {None}
        for key in tests:
            spec = self._checks[key]
            history = self._context.instance.event_log_storage.get_asset_check_execution_history(
                spec.key,
                limit=1,
                status={AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED},
            )
            record = next(iter(history), None)
            evaluation = record.evaluation if record and record.run_id in group else None
            if record is None or evaluation is None:
                continue
            self._found[key] = dg.AssetCheckResult(
                passed=evaluation.passed,
                asset_key=spec.asset_key,
                check_name=spec.name,
                severity=evaluation.severity,
                metadata={**evaluation.metadata, CARRIED_OVER: dg.MetadataValue.dagster_run(record.run_id)},
            )
        return self._found.keys() & set(tests)

    def check_result(self, test: str) -> dg.AssetCheckResult:
        """Return the result of a test that `checked` has found.

        Args:
            test: dbt's unique id.
        """
        return self._found[test]
