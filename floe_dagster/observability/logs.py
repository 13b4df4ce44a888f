"""Log lines with the ids of trace and run, as JSON or text."""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Any


class FloeFormatter(logging.Formatter):
    """Formats records of one product.

    Args:
        product: The product's slug.
        as_json: One JSON object a line; text when False.
        fields: Ids that every line carries, for example run_id.
    """

    def __init__(self, product: str, *, as_json: bool, fields: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.product = product
        self.as_json = as_json
        self.fields = {key: value for key, value in (fields or {}).items() if value is not None}

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; a traceback stays inside of it as JSON, and follows it as text."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        message = record.getMessage()
        ids = {**self.fields, **_span_ids()}
        failed = record.exc_info if record.exc_info and record.exc_info[0] is not None else None
        if not self.as_json:
            told = " ".join(f"{key}={value}" for key, value in ids.items())
            text = f"{when} {record.levelname} {self.product} {message}" + (f" [{told}]" if told else "")
            return text + ("\n" + self.formatException(failed) if failed else "")
        line: dict[str, Any] = {
            "timestamp": when,
            "level": record.levelname,
            "product": self.product,
            "logger": record.name,
            "message": message,
            **ids,
        }
        if failed:
            line["exception.type"] = failed[0].__name__ if failed[0] else ""
            line["exception.message"] = str(failed[1])
            line["exception.stacktrace"] = "".join(traceback.format_exception(*failed))
        return json.dumps(line, ensure_ascii=False, default=str)


def _span_ids() -> dict[str, str]:
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
