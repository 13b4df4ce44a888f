"""The program `floe-dagster`: one command in a process that lives for nothing else."""

from __future__ import annotations

import atexit
import gc
import os
import sys

NEW_OBJECTS = 100_000
"""So many come between two looks of the collector. Importing libraries makes a few hundred thousand, and all of them stay: with
Python's 700 it looks through them again and again, a fifth of the time that they take."""


def program() -> int:
    """Run the command that the process was started with, and return its exit code."""
    ended: list[int] = []
    # What is registered first is called last.
    atexit.register(_leave, ended)
    gc.set_threshold(NEW_OBJECTS)
    from floe_dagster.cli.main import main

    ended.append(main())
    return ended[0]


def _leave(ended: list[int]) -> None:
    """End the process without taking the interpreter apart, which takes long where Dagster was imported and serves nobody."""
    if not ended:
        # An error, or an exit code, that Python itself has to tell.
        return
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return
    os._exit(ended[0])
