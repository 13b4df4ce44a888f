"""What a tool prints while a run goes on, in the format that the manifest asks for."""

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
