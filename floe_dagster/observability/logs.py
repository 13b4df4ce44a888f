"""Log lines with the ids of trace and run, as JSON or text.

JSON is what collectors read and keep, so messages of the engine come without the values that they quote; text is for the
person who looks for the wrong row.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from floe_dagster.faults import shown
from floe_dagster.observability.messages import without_values


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
        ids = {**self.fields, **_dagster_ids(record), **_span_ids()}
        message = str(ids.pop("message", None) or record.getMessage())
        # Dagster's log of ticks leaves the formatted text where the exception was.
        failed = record.exc_info if isinstance(record.exc_info, tuple) and record.exc_info[0] else None
        if not self.as_json:
            told = " ".join(f"{key}={value}" for key, value in ids.items())
            text = f"{when} {record.levelname} {self.product} {message}" + (f" [{told}]" if told else "")
            # Values of rows help whoever looks for the wrong one; what pydantic repeats may be somebody's keys.
            return text + ("\n" + _stacktrace(failed, shown) if failed else "")
        line: dict[str, Any] = {
            "timestamp": when,
            "level": record.levelname,
            "product": self.product,
            "logger": record.name,
            "message": without_values(message),
            **ids,
        }
        if failed:
            line["exception.type"] = failed[0].__name__ if failed[0] else ""
            line["exception.message"] = _collected(failed[1])
            line["exception.stacktrace"] = _stacktrace(failed, _collected)
        return json.dumps(line, ensure_ascii=False, default=str)


class ProcessHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to standard error as it is at that moment; where the process has set up logging, its handlers do."""

    @property
    def stream(self) -> Any:
        """Standard error, also after somebody replaced it."""
        return sys.stderr

    @stream.setter
    def stream(self, _value: Any) -> None:
        pass

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record unless the root logger has handlers, which get it as well."""
        if not logging.getLogger().handlers:
            super().emit(record)


def product_logger(slug: str) -> logging.Logger:
    """Return the logger for what happens outside of any run: delivery, loading.

    Args:
        slug: Of the product.
    """
    return logging.getLogger(f"floe_dagster.products.{slug}")


def configure_product_logger(slug: str, level: str, *, as_json: bool) -> None:
    """Give a product's logger its format and level; the same again changes nothing.

    Args:
        slug: Of the product.
        level: Lowest level that is logged.
        as_json: One JSON object a line; text when False.
    """
    logger = product_logger(slug)
    for handler in [handler for handler in logger.handlers if isinstance(handler, ProcessHandler)]:
        logger.removeHandler(handler)
    handler = ProcessHandler()
    handler.setFormatter(FloeFormatter(slug, as_json=as_json))
    logger.addHandler(handler)
    logger.setLevel(level)


def _collected(error: BaseException) -> str:
    return without_values(shown(error))


def _stacktrace(failed: Any, text: Callable[[BaseException], str]) -> str:
    told = "".join(traceback.format_exception(*failed)).rstrip("\n")
    error: BaseException | None = failed[1]
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        told = told.replace(str(error), text(error)) if str(error) else told
        error = error.__cause__ or error.__context__
    return told


def _dagster_ids(record: logging.LogRecord) -> dict[str, Any]:
    """Return what Dagster knows of a record: its run and step, the message without them."""
    meta = getattr(record, "dagster_meta", None) or {}
    event = meta.get("dagster_event")
    known = {
        "run_id": meta.get("run_id"),
        "job": meta.get("job_name"),
        "step": meta.get("step_key"),
        "event": getattr(event, "event_type_value", None),
        "message": meta.get("orig_message"),
    }
    return {key: value for key, value in known.items() if value}


def _span_ids() -> dict[str, str]:
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
