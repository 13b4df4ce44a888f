"""What one run has of Trino while it is the only one that builds its product there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from floe_dagster.engines.trino.access import TrinoAccess
from floe_dagster.engines.trino.queries import TrinoQueries
from floe_dagster.engines.trino.warehouse import TrinoWarehouse
from floe_dagster.execution.workspaces.base import PublicationRequest
from floe_dagster.execution.workspaces.trino.messages import TrinoMessages
from floe_dagster.iceberg.leases import Lease


@dataclass(frozen=True, slots=True)
class TrinoSession:
    """Ways to Trino, and what the run has made there.

    Args:
        access: To the cluster.
        queries: Of this run.
        warehouse: Trino's catalog.
        lease: On the audit schema.
        messages: Puts into words what Trino says.
        clones: `CLONE_ID` of each clone that the run has made, by unique id of the asset.
    """

    access: TrinoAccess
    queries: TrinoQueries
    warehouse: TrinoWarehouse
    lease: Lease
    messages: TrinoMessages
    clones: dict[str, str] = field(default_factory=dict)

    def clone_of(self, asset: Mapping[str, Any]) -> str | None:
        """Return `CLONE_ID` of the clone of an asset that the run writes; None where it was not published before.

        Args:
            asset: As in the asset index.
        """
        return self.clones.get(asset["id"])

    def mode(self, request: PublicationRequest) -> str:
        """Return how rows come into the published table; at first there is none.

        Args:
            request: What is to be published.
        """
        return request.options.mode if self.clone_of(request.asset) else "overwrite"
