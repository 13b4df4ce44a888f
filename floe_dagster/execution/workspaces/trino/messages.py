"""What Trino says, in a line for people, and whether it passes by itself."""

from __future__ import annotations

import re

from floe_dagster.engines.errors import EngineError
from floe_dagster.execution.errors import WorkspaceError

_QUERY_ERROR = re.compile(
    r'Trino\w*Error\(type=(?P<type>\w+), name=(?P<name>\w+), message="(?P<message>.*?)", query_id=(?P<id>\w+)\)',
    re.DOTALL,
)
_TRANSIENT = re.compile(
    r"\b(QUERY_QUEUE_FULL|CLUSTER_OUT_OF_MEMORY|NO_NODES_AVAILABLE|REMOTE_HOST_GONE|REMOTE_TASK_ERROR|"
    r"REMOTE_TASK_MISMATCH|TOO_MANY_REQUESTS_FAILED|PAGE_TRANSPORT_ERROR|PAGE_TRANSPORT_TIMEOUT|SERVER_SHUTTING_DOWN|"
    r"SERVER_STARTING_UP|SERVER_RESTARTED|ABANDONED_QUERY|ICEBERG_COMMIT_ERROR)\b"
    r"|Failed to establish a new connection|Connection refused|Connection aborted|Max retries exceeded"
    r"|RemoteDisconnected|Read timed out|error 50[234]"
)
_LIMITS = {
    "QUERY_QUEUE_FULL": "the queue of Trino's resource group is full",
    "EXCEEDED_LOCAL_MEMORY_LIMIT": "query.max-memory-per-node of Trino",
    "EXCEEDED_GLOBAL_MEMORY_LIMIT": "query.max-memory of Trino, or query_max_memory in session_properties",
    "EXCEEDED_TIME_LIMIT": "query.max-run-time or query.max-execution-time of Trino, or the session property of that name",
    "EXCEEDED_CPU_LIMIT": "query.max-cpu-time of Trino, or query_max_cpu_time in session_properties",
    "EXCEEDED_SCAN_LIMIT": "query.max-scan-physical-bytes of Trino, or the session property of that name",
}
_CORRECTIONS = {
    "CATALOG_NOT_FOUND": "correct {field}.config.catalog of the manifest",
    "INVALID_SESSION_PROPERTY": "correct {field}.config.session_properties of the manifest",
    "SYNTAX_ERROR": "docs/trino.md says where Trino's SQL is not DuckDB's",
}


class TrinoMessages:
    """Puts into words what Trino says.

    Args:
        field: Where Trino's settings stand in the manifest.
    """

    def __init__(self, field: str) -> None:
        self._field = field

    def explain(self, message: str) -> str:
        """Return what Trino says, its query, and the limit where it was one.

        Args:
            message: Of Trino or dbt.
        """
        found = _QUERY_ERROR.search(message)
        if not found:
            return " ".join(line.strip() for line in message.strip().splitlines()[:3])
        limit = _LIMITS.get(found["name"])
        correction = _CORRECTIONS.get(found["name"], "").format(field=self._field)
        said = " ".join(found["message"].split())
        more = f" (limit: {limit})" if limit else f" ({correction})" if correction else ""
        return f"Trino: {found['name']}: {said}{more}, query {found['id']}"

    def is_transient(self, message: str) -> bool:
        """Tell whether another try may help: nodes went away, a queue is full.

        Args:
            message: Of Trino or dbt.
        """
        return bool(_TRANSIENT.search(message))

    def failure(self, error: Exception) -> WorkspaceError | None:
        """Return how a run ends with an error of Trino; None where it is none.

        Args:
            error: As it was raised.
        """
        from trino.exceptions import TrinoQueryError

        if isinstance(error, EngineError):
            return WorkspaceError(str(error), transient=error.transient)
        if isinstance(error, TrinoQueryError):
            said = self.explain(str(error))
            return WorkspaceError(said, transient=self.is_transient(said))
        return None
