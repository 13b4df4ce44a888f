"""Which of Dagster's processes executes a step: there dbt is imported at once, while Dagster gets ready.

Dagster says so nowhere. What it does say is the command that the first process was started with, which its children, made by
`multiprocessing`, keep in `sys.argv`; and the depth of a child stands in the name that `multiprocessing` gives it. A wrong guess
costs the import of dbt where nobody needs it, or no more than that it comes later.
"""

from __future__ import annotations

import multiprocessing
import sys

_STEP_DEPTH = {"execute_step": 0, "execute_run": 1, "grpc": 2}
"""By Dagster's command: how many times its process has begotten another until one executes a step. A run is a child of the code
server where no launcher starts a process of its own for it; its executor has a child for each step."""


def executes_a_step() -> bool:
    """Tell whether this process has been made for a step."""
    if "api" not in sys.argv:
        return False
    command = next((word for word in sys.argv if word in _STEP_DEPTH), None)
    return command is not None and _depth() >= _STEP_DEPTH[command]


def _depth() -> int:
    if multiprocessing.parent_process() is None:
        return 0
    # `SpawnProcess-2:1` is the first child of the second one.
    return multiprocessing.current_process().name.count(":") + 1
