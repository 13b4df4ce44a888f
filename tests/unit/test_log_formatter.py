"""Log lines of a product: one JSON object each, or text, with the ids of run and trace."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from floe_dagster.observability.logs import FloeFormatter, configure_product_logger, product_logger


def record(message: str = "wrote %d rows", *arguments: Any, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("floe_dagster.shop", logging.WARNING, __file__, 1, message, arguments, None)
    made.created = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC).timestamp()
    for name, value in more.items():
        setattr(made, name, value)
    return made


def failed() -> logging.LogRecord:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        return record("it failed", exc_info=sys.exc_info())


def test_json_is_one_object_a_line() -> None:
    formatter = FloeFormatter("shop", as_json=True, fields={"run_id": "r1", "step": None})
    assert json.loads(formatter.format(record("wrote %d rows", 3))) == {
        "timestamp": "2026-01-02T03:04:05.678+00:00",
        "level": "WARNING",
        "product": "shop",
        "logger": "floe_dagster.shop",
        "message": "wrote 3 rows",
        "run_id": "r1",
    }


def test_text_is_a_line_for_people() -> None:
    formatter = FloeFormatter("shop", as_json=False, fields={"run_id": "r1"})
    assert formatter.format(record("wrote %d rows", 3)) == (
        "2026-01-02T03:04:05.678+00:00 WARNING shop wrote 3 rows [run_id=r1]"
    )
    assert FloeFormatter("shop", as_json=False).format(record("done")).endswith(" WARNING shop done")


@given(message=st.text(), product=st.text(min_size=1), value=st.text() | st.integers() | st.booleans())
def test_any_text_is_one_line_that_says_the_same(message: str, product: str, value: object) -> None:
    formatter = FloeFormatter(product, as_json=True, fields={"value": value})
    line = formatter.format(record("%s", message))
    assert "\n" not in line and "\r" not in line
    read = json.loads(line)
    assert (read["message"], read["product"], read["value"]) == (message, product, value)


def test_what_json_does_not_know_is_written_as_text() -> None:
    formatter = FloeFormatter("shop", as_json=True, fields={"folder": SimpleNamespace(a=1)})
    assert json.loads(formatter.format(record("done")))["folder"] == "namespace(a=1)"


def test_an_exception_stays_inside_of_its_json_line() -> None:
    line = FloeFormatter("shop", as_json=True).format(failed())
    assert "\n" not in line
    read = json.loads(line)
    assert (read["exception.type"], read["exception.message"]) == ("ValueError", "two\nlines")
    assert read["exception.stacktrace"].startswith("Traceback") and __file__ in read["exception.stacktrace"]


def test_an_exception_follows_its_line_of_text() -> None:
    first, *others = FloeFormatter("shop", as_json=False).format(failed()).splitlines()
    assert first.endswith("WARNING shop it failed")
    assert others[0].startswith("Traceback") and others[-2:] == ["ValueError: two", "lines"]


@pytest.mark.parametrize("left", ["Traceback: already text", (None, None, None), None, True])
@pytest.mark.parametrize("as_json", [True, False])
def test_no_exception_is_none(left: Any, as_json: bool) -> None:
    line = FloeFormatter("shop", as_json=as_json).format(record("done", exc_info=left))
    assert "Traceback" not in line and "exception" not in line


@pytest.mark.parametrize("as_json", [True, False])
def test_a_line_inside_of_a_span_carries_its_ids(as_json: bool) -> None:
    formatter = FloeFormatter("shop", as_json=as_json)
    span = TracerProvider(shutdown_on_exit=False).get_tracer("tests").start_span("step")
    context = span.get_span_context()
    ids = (f"{context.trace_id:032x}", f"{context.span_id:016x}")
    with trace.use_span(span):
        line = formatter.format(record("done"))
    if as_json:
        assert (json.loads(line)["trace_id"], json.loads(line)["span_id"]) == ids
    else:
        assert f"[trace_id={ids[0]} span_id={ids[1]}]" in line
    assert "trace_id" not in formatter.format(record("done"))


def test_what_dagster_knows_of_a_line_is_told() -> None:
    meta = {
        "run_id": "r1",
        "job_name": "shop_run",
        "step_key": "shop_dbt",
        "orig_message": "wrote 3 rows",
        "dagster_event": SimpleNamespace(event_type_value="STEP_OUTPUT"),
    }
    made = record("shop_run - r1 - shop_dbt - wrote 3 rows", dagster_meta=meta)
    read = json.loads(FloeFormatter("shop", as_json=True).format(made))
    assert (read["message"], read["run_id"], read["job"], read["step"], read["event"]) == (
        "wrote 3 rows",
        "r1",
        "shop_run",
        "shop_dbt",
        "STEP_OUTPUT",
    )
    text = FloeFormatter("shop", as_json=False).format(made)
    assert " shop wrote 3 rows [run_id=r1 job=shop_run step=shop_dbt event=STEP_OUTPUT]" in text


@pytest.fixture
def product() -> Iterator[str]:
    """A product whose logger nobody else has."""
    yield "shop-of-this-test"
    logger = product_logger("shop-of-this-test")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


def test_a_product_writes_to_standard_error_once(
    product: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest's own.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for as_json in (False, True, True):
        configure_product_logger(product, "INFO", as_json=as_json)
    product_logger(product).info("one")
    product_logger(product).debug("none")
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert json.loads(line)["message"] == "one"


def test_where_the_process_has_set_up_logging_it_decides(
    product: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            got.append(record.getMessage())

    configure_product_logger(product, "INFO", as_json=True)
    monkeypatch.setattr(logging.getLogger(), "handlers", [Handler()])
    product_logger(product).warning("one")
    assert (got, capsys.readouterr().err) == (["one"], "")


QUOTING = "Conversion Error: Could not convert string 'Marker Person\nof two lines' to INT32"
TOLD = "Conversion Error: Could not convert string … to INT32"


def quoting() -> logging.LogRecord:
    try:
        try:
            raise ValueError(QUOTING)
        except ValueError as error:
            raise RuntimeError(f"not published: {QUOTING}") from error
    except RuntimeError:
        return record("model stg: %s", QUOTING, exc_info=sys.exc_info())


def test_json_leaves_out_the_values_that_the_engine_quotes() -> None:
    line = FloeFormatter("shop", as_json=True).format(quoting())
    told = json.loads(line)
    assert "Marker" not in line and "two lines" not in line
    assert told["message"] == f"model stg: {TOLD}"
    assert told["exception.message"] == f"not published: {TOLD}"
    assert told["exception.stacktrace"].count(TOLD) == 2
    assert told["exception.stacktrace"].count('File "') == 2, "the places stay"


def test_text_is_for_who_looks_for_the_wrong_row() -> None:
    text = FloeFormatter("shop", as_json=False).format(quoting())
    assert text.count(QUOTING) == 3
