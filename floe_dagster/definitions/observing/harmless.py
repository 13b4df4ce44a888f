"""What is told of a run never fails it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from floe_dagster.observability.logs import product_logger


def harmless(method: Callable[..., None]) -> Callable[..., None]:
    """Make a method of an observer log its own errors instead of raising them.

    Args:
        method: Of an object whose `observed.slug` names the product.
    """

    @functools.wraps(method)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            product_logger(self.observed.slug).warning(
                "what is told of the run is incomplete: %s: %s", type(error).__name__, error
            )

    return guarded
