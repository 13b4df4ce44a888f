"""The names of Dagster that are not public and that we need all the same: each with its place, and why.

Another module takes them from here: `from floe_dagster.definitions.dagster_private import DefinitionsLoadContext`. So after an
upgrade of Dagster one test says which name is gone (`tests/contract/test_private_names.py`), and one module is changed. A name
is looked up when it is first used: not each process that loads definitions needs all of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster._core.definitions.assets.job.asset_job import (
        is_reserved_asset_job_name as is_reserved_asset_job_name,
    )
    from dagster._core.definitions.definitions_load_context import (
        DefinitionsLoadContext as DefinitionsLoadContext,
    )
    from dagster._core.definitions.definitions_load_context import DefinitionsLoadType as DefinitionsLoadType
    from dagster._core.execution.plan.utils import RetryRequestedFromPolicy as RetryRequestedFromPolicy
    from dagster._core.storage.asset_check_execution_record import (
        AssetCheckExecutionRecordStatus as AssetCheckExecutionRecordStatus,
    )
    from dagster._core.storage.dagster_run import ACTIVE_RUN_STATUSES as ACTIVE_RUN_STATUSES
    from dagster._core.storage.defs_state.base import DefsStateStorage as DefsStateStorage
    from dagster._core.storage.event_log import (
        ConsolidatedSqliteEventLogStorage as ConsolidatedSqliteEventLogStorage,
    )
    from dagster._core.storage.tags import PRIORITY_TAG as PRIORITY_TAG
    from dagster._grpc.client import DagsterGrpcClient as DagsterGrpcClient
    from dagster._utils.schedules import schedule_execution_time_iterator as schedule_execution_time_iterator

NAMES = {
    # A queue of our own counts runs as Dagster's does, and knows whole jobs from the job of a selection of assets.
    "is_reserved_asset_job_name": "dagster._core.definitions.assets.job.asset_job",
    "ACTIVE_RUN_STATUSES": "dagster._core.storage.dagster_run",
    "PRIORITY_TAG": "dagster._core.storage.tags",
    # Which stored state a location serves, and its runs load: there is no public way to name one.
    "DefinitionsLoadContext": "dagster._core.definitions.definitions_load_context",
    "DefinitionsLoadType": "dagster._core.definitions.definitions_load_context",
    "DefsStateStorage": "dagster._core.storage.defs_state.base",
    # What a step raises where its policy asks for another attempt: the command says why it is tried again.
    "RetryRequestedFromPolicy": "dagster._core.execution.plan.utils",
    # The history of one check's results, asked for by their status.
    "AssetCheckExecutionRecordStatus": "dagster._core.storage.asset_check_execution_record",
    # The event log in one file, whose connections we keep.
    "ConsolidatedSqliteEventLogStorage": "dagster._core.storage.event_log",
    # Asks the code server of a run to reload; the public client reaches only the webserver.
    "DagsterGrpcClient": "dagster._grpc.client",
    # When a schedule runs, by the library that Dagster asks: a changed copy of one that is public.
    "schedule_execution_time_iterator": "dagster._utils.schedules",
}
"""Where each name is found."""


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = getattr(import_module(NAMES[name]), name)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"the installed Dagster has no {NAMES[name]}.{name}; install a version that floe-dagster names as its dependency"
        ) from error
    globals()[name] = found
    return found
