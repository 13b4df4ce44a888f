"""Python's garbage collector during a run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def standing_objects_left_alone() -> Iterator[None]:
    """Keep the collector from looking through all that stands already, again and again.

    What a location has loaded (libraries, specs of every model and test) outlives the run, and a run of many models makes
    so many objects that a full collection comes up every few seconds.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
