"""Runs whose worker is lost are started again; what a run itself reports as failed is not.

Dagster's daemon reads these tags where its instance has `run_retries.enabled`, as the Helm chart's and Dagster+ do.
"""

from __future__ import annotations

MAX_RETRIES = 2


def run_retry_tags() -> dict[str, str]:
    """Return the tags of a job that may be started again after its pod was evicted or killed.

    Publication is safe to repeat: a retry from failure finds by the snapshots' properties what stands published, and
    leaves it alone. A failed model or test would fail again, and what trying again helps against inside of a step, its
    own retry policy does.
    """
    return {
        "dagster/max_retries": str(MAX_RETRIES),
        "dagster/retry_strategy": "FROM_FAILURE",
        "dagster/retry_on_asset_or_op_failure": "false",
    }
