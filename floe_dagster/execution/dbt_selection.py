"""The choice of exactly those nodes that a run has planned.

Every method of dbt's `--select` that goes by name takes more than one node where names meet: `fqn:shop.orders` is also
each node below a folder `orders`. The method `result` goes by dbt's unique id, of whatever kind the node is: it chooses the
nodes that the results of an earlier invocation hold. These results are written here.

Sources: `ResultSelectorMethod` in `dbt/graph/selector_methods.py`; the schema run-results v6 of dbt's artifacts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from floe_dagster.atomic import write_atomically

RESULTS_FILE = "run_results.json"
SCHEMA = "https://schemas.getdbt.com/dbt/run-results/v6.json"
STATUS = "success"


def select_exactly(unique_ids: Iterable[str], folder: Path) -> list[str]:
    """Return the arguments of `dbt build` that select the nodes, and no other.

    Args:
        unique_ids: dbt's unique ids of models, seeds, snapshots, tests, unit tests and functions. What the project does not
            have is left out by dbt.
        folder: Takes `run_results.json`; dbt reads it as its `--state`.

    Raises:
        OSError: The folder cannot be written.
    """
    document = {
        "metadata": {"dbt_schema_version": SCHEMA},
        "results": [_result(unique_id) for unique_id in sorted(unique_ids)],
        "elapsed_time": 0.0,
        "args": {},
    }
    write_atomically(folder / RESULTS_FILE, json.dumps(document).encode())
    # Nothing comes along with what is selected: a test has its own place among the unique ids.
    return ["--indirect-selection", "empty", "--select", f"result:{STATUS}", "--state", str(folder)]


def _result(unique_id: str) -> dict[str, Any]:
    return {
        "unique_id": unique_id,
        "status": STATUS,
        "timing": [],
        "thread_id": "",
        "execution_time": 0.0,
        "adapter_response": {},
        "message": None,
        "failures": None,
        "compiled": None,
        "compiled_code": None,
        "relation_name": None,
    }
