"""A fault of the program is told as one: no right is blamed for it, nothing is tried again, no value is shown, no table is lost."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
import requests
from opentelemetry.sdk.trace import TracerProvider
from pydantic import BaseModel, ConfigDict

from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions import maintenance as maintenance_module
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.faults import ADVICE, fault_message, is_fault
from floe_dagster.home import FloeHome
from floe_dagster.iceberg import publication
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.errors import CatalogError, NotUsableError
from floe_dagster.iceberg.publication import RelationName, publish_relation
from floe_dagster.observability.logs import FloeFormatter
from floe_dagster.observability.telemetry import fail
from floe_dagster.platform import check
from floe_dagster.platform.check import check_platform
from floe_dagster.schemas.artifacts import PluginRef

HUSH = "value-that-nobody-may-see"


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    config: dict[str, str]


def frozen() -> None:
    Frozen(config={}).config = {"s3.secret-access-key": HUSH}


def wrong_type() -> None:
    Frozen.model_validate({"config": HUSH})


def caused_by_a_frozen_model() -> None:
    try:
        frozen()
    except ValueError as error:
        raise RuntimeError("it went wrong") from error


def raising(kind: type[Exception], said: str) -> Callable[[], None]:
    def raise_it() -> None:
        raise kind(said)

    return raise_it


FAULTS: dict[str, Callable[[], None]] = {
    "frozen model": frozen,
    "value of another type": wrong_type,
    "caused by a frozen model": caused_by_a_frozen_model,
    "TypeError": raising(TypeError, "f() takes 1 positional argument"),
    "KeyError": raising(KeyError, "metadata"),
    "AttributeError": raising(AttributeError, "no such attribute"),
    "RuntimeError": raising(RuntimeError, "dictionary changed size"),
    "duckdb": lambda: duckdb.sql("select no_such_column from (select 1)").fetchall(),
}


def run(product: Path, home: FloeHome, job: str = "shop_run", **options: Any) -> Any:
    result = compile_product(product, home=home)
    assert result.bundle is not None, result.findings
    definitions = build_product_definitions(result.bundle, product_dir=product, home=home)
    return definitions.resolve_job_def(job).execute_in_process(raise_on_error=False, **options)


def told(outcome: Any) -> str:
    """Everything that Dagster keeps of a run's failure."""
    failures = [event.event_specific_data for event in outcome.all_events if event.is_failure]
    return "\n".join(repr(data) for data in failures)


def tries(outcome: Any) -> int:
    return 1 + sum(e.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY for e in outcome.all_events)


def failure(outcome: Any) -> str:
    (found,) = [e for e in outcome.all_events if e.event_type == dg.DagsterEventType.STEP_FAILURE]
    return str(found.step_failure_data.user_failure_data.description)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    fault = FAULTS[request.param]
    for module in (publication, check):
        monkeypatch.setattr(module, "make_namespace", lambda *_arguments: fault())
    yield


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("broken", FAULTS, indirect=True)
def test_the_platform_s_check_blames_no_right(home: FloeHome) -> None:
    checks = check_platform(PluginRef(type="sql"), PluginRef(type="local"), home=home)
    (wrong,) = [found for found in checks if not found.passed]
    assert wrong.name == "namespace" and wrong.fix == ADVICE
    assert "Grant" not in wrong.message + wrong.fix and HUSH not in wrong.message
    assert "floe_dagster/platform/check.py, line" in wrong.message


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("broken", ["caused by a frozen model"], indirect=True)
def test_a_run_ends_at_once_and_says_so(shop: Path, home: FloeHome) -> None:
    outcome = run(shop, home)
    assert not outcome.success and tries(outcome) == 1
    assert ADVICE in failure(outcome) and "floe_dagster/iceberg/publication.py, line" in failure(outcome)
    assert HUSH not in told(outcome) and "Grant" not in told(outcome)


@pytest.mark.usefixtures("retried_at_once")
def test_what_may_pass_is_tried_again(shop: Path, home: FloeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_arguments: Any) -> None:
        raise OSError("the disk is away for a moment")

    monkeypatch.setattr(publication, "make_namespace", away)
    outcome = run(shop, home)
    assert not outcome.success and tries(outcome) == 2 and ADVICE not in told(outcome)


def test_maintenance_ends_at_once_and_says_so(
    shop: Path, home: FloeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance_module, "retired_tables", lambda *_arguments: frozen())
    outcome = run(shop, home, job="shop_maintenance")
    assert not outcome.success and tries(outcome) == 1
    assert ADVICE in failure(outcome) and HUSH not in told(outcome)


def test_a_fault_after_the_commit_removes_no_file_of_the_table(
    home: FloeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = open_catalog(None, None, home=home)

    def publish(con: Any, value: int) -> None:
        con.execute(f"create or replace table t as select {value} as a").fetchall()
        publish_relation(
            con,
            RelationName("memory", "main", "t"),
            catalog=catalog,
            namespace="shop",
            table="t",
            snapshot_properties={},
        )

    with duckdb.connect() as con:
        publish(con, 1)
        monkeypatch.setattr(publication, "summary_of", lambda *_arguments: frozen())
        with pytest.raises(ValueError, match="frozen"):
            publish(con, 2)
    assert catalog.load_table("shop.t").scan().to_arrow().to_pylist() == [{"a": 2}]


@pytest.mark.parametrize(
    "error",
    [
        OSError("disk full"),
        TimeoutError("no answer"),
        requests.exceptions.InvalidURL("what a manifest names"),
        requests.exceptions.JSONDecodeError("no JSON", "", 0),
        CatalogError("away"),
        NotUsableError("refused"),
        duckdb.IOException("the file is locked"),
        dg.Failure("a model failed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_service_or_the_machine_says_is_no_fault(error: Exception) -> None:
    assert not is_fault(error)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_names_itself_and_shows_no_value(name: str) -> None:
    with pytest.raises(Exception) as caught:
        FAULTS[name]()
    assert is_fault(caught.value)
    message = fault_message(caught.value, "shop.orders could not be written")
    assert message.startswith("shop.orders could not be written: ") and ADVICE in message
    assert HUSH not in message
    assert json.dumps(message)


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("name", ["frozen model", "value of another type", "caused by a frozen model"])
def test_no_log_line_and_no_span_shows_the_value(name: str, as_json: bool) -> None:
    with pytest.raises(Exception) as caught:
        FAULTS[name]()
    error = caught.value
    record = logging.LogRecord(
        "x", logging.ERROR, __file__, 1, "it failed", None, (type(error), error, error.__traceback__)
    )
    line = FloeFormatter("shop", as_json=as_json).format(record)
    assert "validation error" in line.lower() or "ValidationError" in line
    assert HUSH not in line and "test_unexpected_errors.py" in line
    span = TracerProvider().get_tracer("test").start_span("publish")
    fail(span, error)
    assert HUSH not in str(span.status.description) and span.status.description
