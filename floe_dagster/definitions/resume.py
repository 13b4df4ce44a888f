"""What an earlier attempt of the same run has done, so that a retry repeats none of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from floe_dagster.iceberg.publication import find_snapshot

CARRIED_OVER = "floe/carried_over_from_run"


@dataclass(slots=True)
class Earlier:
    """What stands already.

    Args:
        snapshots: Snapshot id of each table that was published, by unique id of the asset.
        recorded: Those whose materialization is in Dagster's event log.
        checks: Recorded result of each of their checks, by unique id of the test.
    """

    snapshots: dict[str, int] = field(default_factory=dict)
    recorded: set[str] = field(default_factory=set)
    checks: dict[str, dg.AssetCheckResult] = field(default_factory=dict)


def is_resumed(context: dg.AssetExecutionContext) -> bool:
    """Return whether the step is a retry, or the run continues a failed one.

    A re-execution of all steps is neither: a person asked for everything again.
    """
    run = context.run
    continued = run.parent_run_id is not None and run.step_keys_to_execute is not None
    return context.retry_number > 0 or continued or run.tags.get("dagster/is_resume_retry") == "true"


def run_mark(context: dg.AssetExecutionContext, digest: str) -> dict[str, str]:
    """Return the snapshot properties by which attempts of the same run know each other's work.

    Args:
        context: Of the step.
        digest: Of the compiled sources: another state's work counts for nothing.
    """
    run = context.run
    return {"floe.run-group": run.root_run_id or run.run_id, "floe.source-digest": digest}


def earlier_attempts(
    context: dg.AssetExecutionContext,
    catalog: Any,
    namespace: str,
    assets: Iterable[Mapping[str, Any]],
    specs: Mapping[str, dg.AssetSpec],
    mark: Mapping[str, str],
) -> Earlier:
    """Look up which of `assets` an earlier attempt has published and recorded.

    The catalog is asked first: a process that was killed between the commit and Dagster's event has
    published all the same.

    Args:
        context: Of the step.
        catalog: From `open_catalog`.
        namespace: Of the product.
        assets: Published ones, as in the asset index.
        specs: Asset specs by unique id.
        mark: See `run_mark`.
    """
    earlier = Earlier()
    for asset in assets:
        identifier = (namespace, asset["name"])
        if not catalog.table_exists(identifier):
            continue
        snapshot = find_snapshot(catalog.load_table(identifier), mark)
        if snapshot is not None:
            earlier.snapshots[asset["id"]] = snapshot
    events = context.instance.event_log_storage.get_latest_materialization_events(
        [specs[key].key for key in earlier.snapshots]
    )
    for key, snapshot in earlier.snapshots.items():
        event = events.get(specs[key].key)
        found = event.asset_materialization if event else None
        if found and str(snapshot) == str(getattr(found.metadata.get("iceberg/snapshot_id"), "value", None)):
            earlier.recorded.add(key)
    return earlier


def recorded_checks(
    context: dg.AssetExecutionContext, checks: Mapping[str, dg.AssetCheckSpec]
) -> dict[str, dg.AssetCheckResult]:
    """Return the results that earlier attempts of this run recorded for `checks`, by unique id.

    Args:
        context: Of the step.
        checks: Check specs by unique id of the test.
    """
    run = context.run
    group = {run.run_id, run.root_run_id, run.parent_run_id} - {None}
    found: dict[str, dg.AssetCheckResult] = {}
    for key, spec in checks.items():
        history = context.instance.event_log_storage.get_asset_check_execution_history(
            spec.key,
            limit=1,
            status={AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED},
        )
        record = next(iter(history), None)
        evaluation = record.evaluation if record and record.run_id in group else None
        if record is None or evaluation is None:
            continue
        found[key] = dg.AssetCheckResult(
            passed=evaluation.passed,
            asset_key=spec.asset_key,
            check_name=spec.name,
            severity=evaluation.severity,
            metadata={**evaluation.metadata, CARRIED_OVER: dg.MetadataValue.dagster_run(record.run_id)},
        )
    return found
