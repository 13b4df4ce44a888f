"""What Dagster's console prints of a product, in the format and level of the manifest."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from floe_dagster.observability.logs import FloeFormatter
from floe_dagster.schemas.artifacts import TelemetryLogging


def shape_console(
    logger: logging.Logger, slug: str, config: TelemetryLogging, fields: Mapping[str, Any]
) -> None:
    """Have the console lines of a run or a tick formatted as the manifest says.

    Dagster formats them by the run's configuration alone, which materializing by hand does not have; so its console
    handlers, which belong to this one run or tick, get another formatter. The event log in the UI stays complete.

    Args:
        logger: `context.log`.
        slug: Of the product.
        config: Of the artifact.
        fields: Ids that every line carries.
    """
    formatter = FloeFormatter(slug, as_json=config.json_output, fields=dict(fields))
    for console in _console_loggers(logger):
        for handler in console.handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.setFormatter(formatter)
                handler.setLevel(config.log_level)


def _console_loggers(logger: logging.Logger) -> Iterator[logging.Logger]:
    for handler in logger.handlers:
        # Runs dispatch to the first, ticks to the second; neither has a public door.
        for name in ("_loggers", "_downstream_loggers"):
            yield from getattr(handler, name, ())
