"""What Dagster's console prints of a product, in the format and level of the manifest."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from floe_dagster.observability.logs import FloeFormatter
from floe_dagster.observability.messages import without_values
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


@contextlib.contextmanager
def shaped_output(slug: str, config: TelemetryLogging, fields: Mapping[str, Any]) -> Iterator[None]:
    """Have what a tool prints come out as JSON lines as well, where the manifest asks for JSON.

    Args:
        slug: Of the product.
        config: Of the artifact.
        fields: Ids that every line carries.
    """
    if not config.json_output:
        yield
        return
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(FloeFormatter(slug, as_json=True, fields=dict(fields)))
    handler.setLevel(config.log_level)
    lines = _Lines(handler, "dbt")
    with contextlib.redirect_stdout(lines):
        try:
            yield
        finally:
            lines.write("\n")


class _Lines(io.TextIOBase):
    """Makes a log record of each line that is written."""

    def __init__(self, handler: logging.Handler, name: str) -> None:
        self._handler = handler
        self._name = name
        self._rest = ""

    def write(self, text: str) -> int:
        # dbt's message comes in one piece; a value that it quotes may be of several lines.
        told = without_values(text.removesuffix("\n")) + ("\n" if text.endswith("\n") else "")
        *lines, self._rest = (self._rest + told).split("\n")
        for line in filter(str.strip, lines):
            record = logging.LogRecord(self._name, logging.INFO, __file__, 0, line, None, None)
            if record.levelno >= self._handler.level:
                self._handler.handle(record)
        return len(text)


def _console_loggers(logger: logging.Logger) -> Iterator[logging.Logger]:
    for handler in logger.handlers:
        # Runs dispatch to the first, ticks to the second; neither has a public door.
        for name in ("_loggers", "_downstream_loggers"):
            yield from getattr(handler, name, ())
