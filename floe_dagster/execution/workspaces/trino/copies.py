"""Rows that Trino copies by a statement of its own, where dbt does not write the published table itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from floe_dagster.engines.errors import EngineError
from floe_dagster.execution.workspaces.base import PublicationRequest
from floe_dagster.execution.workspaces.trino.session import TrinoSession
from floe_dagster.iceberg.errors import PublicationError
from floe_dagster.iceberg.keys import check_key
from floe_dagster.schemas.compute.engine import STATEFUL
from floe_dagster.schemas.compute.trino_project import table_properties

COPY = "__floe_table"
"""Ends the name of the table that takes the rows of a relation which dbt does not write as the published table."""

AT_ONCE = 4


def is_copied(asset: Mapping[str, Any]) -> bool:
    """Tell whether dbt builds something else than the published table, whose rows are then copied within Trino.

    A view is no table; rows that are added to a table, or take the place of some, are not the table; and a seed that is loaded
    anew (`--full-refresh`) is made anew by dbt, which is no longer the clone.
    """
    if asset["materialized"] in STATEFUL:
        return False
    if asset["materialized"] == "seed":
        return True
    mode = (asset.get("table") or {}).get("write_mode") or "overwrite"
    return asset["materialized"] == "view" or mode != "overwrite"


def written(asset: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the relation that becomes the published table.

    Args:
        asset: As in the asset index.
    """
    database, schema, name = asset["relation"]
    return database, schema, f"{name}{COPY}" if is_copied(asset) else name


class Copies:
    """Copies of one run, made before anything gets its published name.

    Args:
        session: Of the run.
    """

    def __init__(self, session: TrinoSession) -> None:
        self._session = session
        self._failures: dict[str, PublicationError] = {}

    def make(self, requests: Sequence[PublicationRequest], away: EngineError | None) -> None:
        """Copy what has to be copied of some tables; what fails is kept for `check`.

        Args:
            requests: Of all that will be published.
            away: Why Trino is not asked at all.
        """
        copied = [request for request in requests if is_copied(request.asset)]
        try:
            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="floe-copy") as pool:
                failures = list(pool.map(partial(self._try, away=away), copied))
        except BaseException:
            # Who waits for a statement is told first; Trino goes on otherwise.
            self._session.queries.cancel()
            raise
        for request, failure in zip(copied, failures, strict=True):
            if failure is not None:
                self._failures[request.asset["id"]] = failure

    def check(self, asset: Mapping[str, Any]) -> None:
        """Raise what kept an asset from being copied.

        Raises:
            PublicationError: With whether trying again may help.
        """
        if failure := self._failures.get(asset["id"]):
            raise failure

    def _try(self, request: PublicationRequest, away: EngineError | None) -> PublicationError | None:
        full_name = f"{request.namespace}.{request.table}"
        try:
            if away is not None:
                raise away
            self._copy(request, full_name)
        except PublicationError as error:
            return error
        except Exception as error:
            # Trino's word on a whole run is its word on one table, too.
            if (failure := self._session.messages.failure(error)) is None:
                raise
            return PublicationError(f"{full_name}: {failure}", transient=failure.transient)
        return None

    def _copy(self, request: PublicationRequest, full_name: str) -> None:
        asset, warehouse = request.asset, self._session.warehouse
        source, target = asset["relation"], written(asset)
        # Trino knows columns in lower case alone.
        key = [name.lower() for name in request.options.key]
        if request.options.mode == "upsert":
            check_key(key, list(warehouse.columns_of(source)), full_name, partial(warehouse.any_row, source))
        match self._session.mode(request):
            case "append":
                warehouse.append(source, target, warehouse.widen(source, target))
            case "upsert":
                warehouse.upsert(source, target, warehouse.widen(source, target), key)
            case _:
                table = asset.get("table") or {}
                layout = table_properties(table.get("partition_by"), table.get("sort_by"))
                warehouse.copy(source, target, layout)
