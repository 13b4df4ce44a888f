"""After a new state is stored: have the code server load it, and see with one's own eyes that it did.

`dagster dev` and `dagster code-server start` reload on request; `dagster api grpc` answers SUCCESS and does
nothing. So the answer proves nothing: what is served is read back.
"""

from __future__ import annotations

import json
import time
from typing import Any

import dagster as dg

from floe_dagster.definitions.state import state_key
from floe_dagster.digests import version_of

RELOAD_TIMEOUT_SECONDS = 60


def reload_and_verify(context: dg.AssetExecutionContext, slug: str, digest: str) -> bool:
    """Ask the run's own code server to reload and wait until it serves `digest`.

    Args:
        context: Of the op that stored the state.
        slug: The product's slug.
        digest: `sha256:…` of the state just stored.

    Returns:
        True where the digest is served; False, after a warning that says what to do, where it is not. A run
        without a code server (the command line, a test) has nothing to reload and gives True.
    """
    from floe_dagster.definitions.dagster_private import DagsterGrpcClient

    where = context.run.tags.get(".dagster/grpc_info")
    origin = context.run.remote_job_origin
    if not where or origin is None:
        return True
    version = version_of(digest)
    address = json.loads(where)
    client = DagsterGrpcClient(
        host=address.get("host") or "localhost",
        port=address.get("port"),
        socket=address.get("socket"),
        use_ssl=bool(address.get("use_ssl")),
    )
    problem = "it still serves another state"
    try:
        client.reload_code(timeout=RELOAD_TIMEOUT_SECONDS)
    except Exception as error:  # the state is stored and stays good, whatever the server says
        problem = f"it did not answer: {type(error).__name__}"
    deadline = time.monotonic() + RELOAD_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        try:
            served = served_version(client, origin.repository_origin, slug)
        except Exception as error:  # a server that restarts is away for a moment
            problem = f"it did not answer: {type(error).__name__}"
        else:
            if served == version:
                context.log.info(f"the code location serves state {version[:12]}")
                return True
            if served is None:
                problem = "it has no state"
        time.sleep(1)
    context.log.warning(
        f"the code location was asked to reload and does not serve state {version[:12]}: {problem}. Start it with "
        "`dagster code-server start`, or redeploy it."
    )
    return False


def served_version(client: Any, repository_origin: Any, slug: str) -> str | None:
    """Return the version of the product's state that a code server serves.

    Args:
        client: Of the code server.
        repository_origin: Of the repository that holds the product.
        slug: The product's slug.
    """
    from dagster import deserialize_value

    snapshot = deserialize_value(client.external_repository(repository_origin, defer_snapshots=True))
    info = getattr(snapshot, "defs_state_info", None)
    version = info.get_version(state_key(slug)) if info else None
    return str(version) if version else None
