"""Spans and metrics of products, through the SDK and real receivers."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import metrics, trace

from floe_dagster.home import FloeHome
from floe_dagster.observability.environment import Environment, deployment_environment
from floe_dagster.observability.telemetry import Telemetry, fail, trace_parent
from floe_dagster.observability.trace_context import (
    TraceParent,
    run_span_id,
    step_span_id,
    trace_id_of,
)
from floe_dagster.schemas.artifacts import ResourceAttributes, SamplingConfig, TelemetryConfig
from tests.conftest import ROOT
from tests.receivers import FaultMode, OtlpReceiver, Tree

ALL = SamplingConfig(dev=1, staging=1, prod=1)
HOSTILE = {
    "OTEL_SDK_DISABLED": "true",
    "OTEL_TRACES_SAMPLER": "always_off",
    "OTEL_METRICS_EXEMPLAR_FILTER": "nonsense",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "1",
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "nonsense",
    "OTEL_SPAN_EVENT_COUNT_LIMIT": "-1",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "2",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "2",
    "OTEL_BSP_MAX_QUEUE_SIZE": "nonsense",
    "OTEL_BSP_SCHEDULE_DELAY": "1000000",
    "OTEL_METRIC_EXPORT_TIMEOUT": "nonsense",
    "OTEL_METRIC_EXPORT_INTERVAL": "nonsense",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
    "OTEL_EXPORTER_OTLP_HEADERS": "nonsense",
    "OTEL_RESOURCE_ATTRIBUTES": "service.name=other,x=y",
    "OTEL_SERVICE_NAME": "other",
    "http_proxy": "http://127.0.0.1:1",
    "https_proxy": "http://127.0.0.1:1",
    "grpc_proxy": "http://127.0.0.1:1",
}


@pytest.fixture
def otlp() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


def config_for(
    receiver: OtlpReceiver, protocol: str = "http", slug: str = "shop", **more: Any
) -> TelemetryConfig:
    endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    resource = ResourceAttributes(
        service_name=slug,
        service_version="1.2.3",
        floe_namespace=f"{slug}_tables",
        floe_product_name=slug,
        floe_product_version="1.2.3",
        floe_mode="simple",
    )
    given: dict[str, Any] = {
        "otlp_endpoint": endpoint,
        "otlp_protocol": protocol,
        "sampling": ALL,
        "resource_attributes": resource,
    }
    return TelemetryConfig(**given | more)


@contextmanager
def telling(
    config: TelemetryConfig, home: FloeHome, slug: str = "shop", environment: Environment = "dev"
) -> Iterator[Telemetry]:
    telemetry = Telemetry(slug, config, home, environment)
    try:
        yield telemetry
    finally:
        telemetry.close(0)


def small_trace(telemetry: Telemetry, run: str = "run-1") -> None:
    """A run with a step that fails, whose spans have ids that others can find."""
    root = telemetry.start_span("run", None, trace_id=trace_id_of(run), span_id=run_span_id(run))
    with (
        pytest.raises(ValueError, match="no such table"),
        telemetry.span(
            "step",
            root,
            span_id=step_span_id(run, "build", 0),
            kind="CLIENT",
            attributes={"floe.rows": 3, "floe.none": None},
        ),
    ):
        raise ValueError("no such table")
    root.end()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_spans_arrive_with_who_they_are_from(home: FloeHome, otlp: OtlpReceiver, protocol: str) -> None:
    with telling(config_for(otlp, protocol), home) as telemetry:
        small_trace(telemetry)
        assert telemetry.flush(10)
    tree = otlp.tree(f"{trace_id_of('run-1'):032x}")
    assert [(depth, span.name) for depth, span in tree.walk()] == [(0, "run"), (1, "step")]
    step = tree.one("step")
    assert tree.root.span_id == f"{run_span_id('run-1'):016x}"
    assert step.span_id == f"{step_span_id('run-1', 'build', 0):016x}"
    assert (step.kind, step.status, step.status_message) == ("CLIENT", "ERROR", "no such table")
    assert step.attributes == {"floe.rows": 3, "error.type": "ValueError"}
    (exception,) = step.events
    assert exception.attributes == {
        "exception.type": "ValueError",
        "exception.message": "no such table",
    }
    expected = {
        "service.name": "shop",
        "service.namespace": "floe",
        "service.version": "1.2.3",
        "deployment.environment.name": "dev",
        "floe.namespace": "shop_tables",
        "floe.product.name": "shop",
        "floe.product.version": "1.2.3",
        "floe.mode": "simple",
        "process.pid": os.getpid(),
        "telemetry.sdk.name": "opentelemetry",
    }
    assert expected.items() <= step.resource.items()
    assert step.resource["host.name"] and step.resource["service.instance.id"]
    assert step.scope == "floe_dagster"
    assert {request.transport for request in otlp.requests()} == {protocol}


def test_a_product_without_attributes_is_named_by_its_slug(home: FloeHome, otlp: OtlpReceiver) -> None:
    with telling(config_for(otlp, resource_attributes=None), home, environment="staging") as telemetry:
        small_trace(telemetry)
        assert telemetry.flush(10)
    resource = otlp.spans()[0].resource
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("shop", "staging")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_metrics_have_names_units_and_the_products_resource(
    home: FloeHome, otlp: OtlpReceiver, protocol: str
) -> None:
    counters = {
        "rows": ("floe.publication.rows", "{row}"),
        "bytes": ("floe.publication.bytes", "By"),
        "checks": ("floe.checks", "{check}"),
        "findings": ("floe.findings", "{finding}"),
        "compilations": ("floe.compilations", "{compilation}"),
        "retries": ("floe.retries", "{retry}"),
        "token_refreshes": ("floe.token.refreshes", "{refresh}"),
    }
    durations = {
        "model": "floe.model.duration",
        "publication": "floe.publication.duration",
        "run": "floe.run.duration",
    }
    with telling(config_for(otlp, protocol), home) as telemetry:
        for key in counters:
            telemetry.instruments.add(key, 2, asset="orders", nothing=None)
            telemetry.instruments.add(key, 3, asset="orders")
        for key in durations:
            telemetry.instruments.record(key, 1.5, asset="orders")
        assert telemetry.flush(10)
    points = {point.name: point for point in otlp.metrics()}
    for name, unit in counters.values():
        point = points[name]
        assert (point.value, point.unit, point.type, point.monotonic) == (5, unit, "sum", True)
        assert point.attributes == {"floe.asset": "orders"}
        assert point.description and point.resource["service.name"] == "shop"
    for name in durations.values():
        assert (points[name].unit, points[name].sum, points[name].count) == ("s", 1.5, 1)
    queue = [point for point in otlp.metrics() if point.name == "floe.telemetry.queue"]
    assert {point.attributes["floe.kind"] for point in queue} == {"traces", "metrics"}
    assert set(points) == {name for name, _ in counters.values()} | {*durations.values(), queue[0].name}


def test_what_waits_is_measured(home: FloeHome, otlp: OtlpReceiver) -> None:
    otlp.mode = FaultMode.STATUS_500
    with telling(config_for(otlp), home) as telemetry:
        for run in ("a", "b", "c"):
            small_trace(telemetry, run)
            telemetry.flush(5)
        otlp.mode = FaultMode.OK
        otlp.wait_until(lambda: len(otlp.spans()) == 6, 20)
        otlp.wait_until(lambda: len({point.time for point in otlp.metrics()}) >= 3, 20)
    waiting = [
        point.value
        for point in otlp.metrics()
        if point.name == "floe.telemetry.queue" and point.attributes["floe.kind"] == "traces"
    ]
    # Each flush put one more request of spans before metrics were collected.
    assert waiting[:3] == [1, 2, 3]


def test_two_products_in_one_process_stay_apart(home: FloeHome) -> None:
    with OtlpReceiver() as first, OtlpReceiver() as second:
        shop, bank = config_for(first, "http", "shop"), config_for(second, "grpc", "bank")
        with telling(shop, home) as one, telling(bank, home, "bank", "prod") as other:
            for _ in range(2):
                small_trace(one, "shop-run")
            small_trace(other, "bank-run")
            one.instruments.add("rows", 1)
            other.instruments.add("rows", 10)
            assert one.flush(10) and other.flush(10)
        for receiver, slug, environment, spans, rows in (
            (first, "shop", "dev", 4, 1),
            (second, "bank", "prod", 2, 10),
        ):
            found = receiver.spans()
            assert len(found) == spans
            assert {span.resource["service.name"] for span in found} == {slug}
            assert {span.resource["deployment.environment.name"] for span in found} == {environment}
            assert {span.trace_id for span in found} == {f"{trace_id_of(f'{slug}-run'):032x}"}
            assert {p.value for p in receiver.metrics() if p.name == "floe.publication.rows"} == {rows}
    assert {path.name for path in (home.path / "outbox").iterdir()} == {"shop", "bank"}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_no_variable_of_the_environment_decides(
    home: FloeHome, otlp: OtlpReceiver, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with telling(config_for(otlp, protocol), home) as telemetry:
        with telemetry.span("run", None, attributes={f"key{n}": "a long value" for n in range(20)}) as span:
            for _ in range(3):
                span.add_event("event", {"said": "a long value"})
        telemetry.instruments.add("rows", 1)
        assert telemetry.flush(10)
    assert dict(os.environ) == before
    (found,) = otlp.spans()
    assert found.attributes == {f"key{n}": "a long value" for n in range(20)}
    assert [event.attributes["said"] for event in found.events] == ["a long value"] * 3
    assert (found.resource["service.name"], "x" in found.resource) == ("shop", False)
    assert "floe.publication.rows" in {point.name for point in otlp.metrics()}


def test_what_is_global_in_opentelemetry_stays_as_it_is(home: FloeHome, otlp: OtlpReceiver) -> None:
    tracers, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
    with telling(config_for(otlp), home) as telemetry:
        small_trace(telemetry)
        with telemetry.span("run", None):
            # Nobody else's spans become children of a product's.
            assert trace.get_current_span() is trace.INVALID_SPAN
        with trace.get_tracer("of-somebody-else").start_as_current_span("foreign"):
            own = telemetry.start_span("own", None)
            own.end()
        assert telemetry.flush(10)
    assert trace.get_tracer_provider() is tracers and metrics.get_meter_provider() is meters
    assert {span.name for span in otlp.spans()} == {"run", "step", "own"}
    assert {span.parent_id for span in otlp.spans() if span.name != "step"} == {""}


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_a_trace_is_kept_or_not_as_a_whole(home: FloeHome, otlp: OtlpReceiver, rate: float) -> None:
    sampling = SamplingConfig(dev=0, staging=0, prod=rate)
    runs = [f"run-{number}" for number in range(200)]
    with (
        telling(config_for(otlp, sampling=sampling), home, environment="prod") as one,
        telling(config_for(otlp, sampling=sampling), home, environment="prod") as other,
    ):
        kept = {run for run in runs if one.is_sampled(trace_id_of(run))}
        for run in runs:
            # The root is made in one process, the steps in others that know its position only.
            root = one.start_span("run", None, trace_id=trace_id_of(run), span_id=run_span_id(run))
            assert root.get_span_context().trace_flags.sampled == (run in kept)
            carried = TraceParent.parse(str(trace_parent(root)))
            assert carried == TraceParent(trace_id_of(run), run_span_id(run), run in kept)
            with other.span("step", carried):
                pass
            # Nor does it matter who begins: whoever derives the position comes to the same result.
            derived = TraceParent(trace_id_of(run), run_span_id(run), other.is_sampled(trace_id_of(run)))
            with other.span("late", derived):
                pass
            root.end()
        assert one.flush(10) and other.flush(10)
    assert set(otlp.trace_ids()) == {f"{trace_id_of(run):032x}" for run in kept}
    for trace_id in otlp.trace_ids():
        assert sorted(span.name for span in otlp.tree(trace_id).spans) == ["late", "run", "step"]
    assert len(kept) == {0.0: 0, 1.0: 200}.get(rate, len(kept))
    if rate == 0.3:
        assert 30 <= len(kept) <= 90


def test_the_environment_chooses_the_rate(home: FloeHome, otlp: OtlpReceiver) -> None:
    sampling = SamplingConfig(dev=1, staging=0, prod=0)
    config = config_for(otlp, sampling=sampling)
    for environment, sampled in (("dev", True), ("staging", False), ("prod", False)):
        with telling(config, home, environment=environment) as telemetry:  # type: ignore[arg-type]
            assert telemetry.is_sampled(trace_id_of("run")) == sampled


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "dev"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "prod"),
        ({"DAGSTER_CLOUD_DEPLOYMENT_NAME": "main"}, "prod"),
        ({"DAGSTER_CLOUD_DEPLOYMENT_NAME": "x", "DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT": "1"}, "staging"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "FLOE_ENVIRONMENT": " Staging "}, "staging"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "FLOE_ENVIRONMENT": "moon"}, "prod"),
    ],
)
def test_the_platform_says_which_environment_it_is(environ: dict[str, str], expected: str) -> None:
    assert deployment_environment(environ) == expected


@settings(deadline=None, max_examples=50)
@given(rate=st.floats(0, 1), trace_id=st.integers(1, (1 << 128) - 1))
def test_a_higher_rate_keeps_what_a_lower_one_keeps(rate: float, trace_id: int) -> None:
    from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

    decided = (
        TraceIdRatioBased(rate).should_sample(None, trace_id, "x").decision is Decision.RECORD_AND_SAMPLE
    )
    config = TelemetryConfig(backend="console", sampling=SamplingConfig(dev=rate))
    telemetry = Telemetry("shop", config, FloeHome(ROOT / "none"), "dev")
    try:
        assert telemetry.is_sampled(trace_id) == decided
    finally:
        telemetry.close(0)


def test_the_console_gets_what_nobody_else_gets(home: FloeHome, capfd: pytest.CaptureFixture[str]) -> None:
    import json

    config = TelemetryConfig(backend="console", sampling=ALL)
    with telling(config, home) as telemetry:
        small_trace(telemetry)
        telemetry.instruments.add("rows", 4)
        assert telemetry.flush(10)
    out, err = capfd.readouterr()
    assert out == ""
    assert '"name": "step"' in err and "floe.publication.rows" in err
    decoder = json.JSONDecoder()
    assert decoder.raw_decode(err[err.index("{") :])[0]
    assert not home.path.exists()


@pytest.mark.parametrize("more", [{"backend": "none"}, {"enabled": False}])
def test_whoever_wants_none_gets_none(home: FloeHome, otlp: OtlpReceiver, more: dict[str, Any]) -> None:
    with telling(config_for(otlp, **more), home) as telemetry:
        assert not telemetry.enabled and not telemetry.is_sampled(1)
        with telemetry.span("run", None) as span:
            fail(span, "does no harm")
        telemetry.instruments.add("rows", 1)
        telemetry.instruments.record("run", 1)
        assert telemetry.flush(10)
    assert otlp.requests() == [] and not home.path.exists()


def test_the_default_endpoint_is_used_where_somebody_listens(home: FloeHome) -> None:
    config = TelemetryConfig(endpoint_is_default=True)
    with telling(config, home) as telemetry:
        # Nobody asked for it, and nobody listens at 4317 of this machine.
        assert not telemetry.enabled
    assert not home.path.exists()


def test_spans_wait_while_nobody_listens_and_arrive_later(home: FloeHome, otlp: OtlpReceiver) -> None:
    otlp.stop_listening()
    with telling(config_for(otlp, "grpc"), home) as telemetry:
        begun = time.monotonic()
        small_trace(telemetry)
        assert not telemetry.flush(30)
        telemetry.close(30)
        assert time.monotonic() - begun < 3
    assert list(home.outbox_dir("shop", "traces").glob("*.records"))
    otlp.start_listening()
    with telling(config_for(otlp, "grpc"), home):
        otlp.wait_until(lambda: len(otlp.spans()) == 2)
        otlp.wait_until(lambda: otlp.metrics())
    assert [span.name for span in otlp.tree().spans] == ["run", "step"]


def test_a_receiver_that_is_away_is_named_once_for_traces_and_metrics(
    home: FloeHome, otlp: OtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    otlp.stop_listening()
    with telling(config_for(otlp), home) as telemetry:
        for run in "abc":
            small_trace(telemetry, run)
            telemetry.flush(1)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert 1 <= len(told) <= 2
    assert all(
        "observability.tracing.endpoint of shop" in text and otlp.http_endpoint in text for text in told
    )
    assert "Traceback" not in caplog.text


KILLED = """
import os, signal, sys
from pathlib import Path
from floe_dagster.home import FloeHome
from floe_dagster.observability.telemetry import Telemetry
from floe_dagster.observability.trace_context import run_span_id, trace_id_of, TraceParent
from floe_dagster.schemas.artifacts import TelemetryConfig, SamplingConfig

config = TelemetryConfig(otlp_endpoint=sys.argv[1], otlp_protocol="http", sampling=SamplingConfig())
telemetry = Telemetry("shop", config, FloeHome(Path(sys.argv[2])), "dev")
with telemetry.span("step", TraceParent(trace_id_of("run"), run_span_id("run"))):
    pass
telemetry._processor.force_flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_trace_of_a_process_that_was_killed_is_made_whole_by_the_next(
    home: FloeHome, otlp: OtlpReceiver
) -> None:
    otlp.stop_listening()
    done = subprocess.run([sys.executable, "-c", KILLED, otlp.http_endpoint, str(home.path)], cwd=ROOT)
    assert done.returncode == -9
    otlp.start_listening()
    with telling(config_for(otlp), home) as telemetry:
        telemetry.start_span("run", None, trace_id=trace_id_of("run"), span_id=run_span_id("run")).end()
        assert telemetry.flush(10)
        otlp.wait_until(lambda: len(otlp.spans()) == 2)
    tree: Tree = otlp.tree()
    assert [(depth, span.name) for depth, span in tree.walk()] == [(0, "run"), (1, "step")]


ENDS = """
import sys
from pathlib import Path
from floe_dagster.home import FloeHome
from floe_dagster.observability.telemetry import Telemetry
from floe_dagster.schemas.artifacts import TelemetryConfig

config = TelemetryConfig(otlp_endpoint=sys.argv[1], otlp_protocol=sys.argv[2])
telemetry = Telemetry("shop", config, FloeHome(Path(sys.argv[3])), "dev")
with telemetry.span("run", None):
    telemetry.instruments.add("rows", 1)
if sys.argv[4] == "close":
    telemetry.close(10)
else:
    telemetry.flush(10)
"""


@pytest.mark.parametrize("mode", [FaultMode.BLACK_HOLE, FaultMode.STATUS_500, None])
@pytest.mark.parametrize(("protocol", "end"), [("grpc", "close"), ("http", "flush")])
def test_a_process_ends_in_time_and_without_a_word_of_python(
    home: FloeHome, otlp: OtlpReceiver, protocol: str, end: str, mode: FaultMode | None
) -> None:
    if mode is None:
        otlp.stop_listening()
    else:
        otlp.mode = mode
    endpoint = otlp.grpc_endpoint if protocol == "grpc" else otlp.http_endpoint
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", ENDS, endpoint, protocol, str(home.path), end],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    # Without a bound it would wait for good; Python's own beginning takes its time on a busy machine.
    assert time.monotonic() - begun < 40
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (0, "", False), done.stderr
    assert len(list(home.outbox_dir("shop", "traces").glob("*.records"))) == 1


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("bad"), "ValueError", "bad"),
        (ValueError(), "ValueError", "ValueError"),
        ("just text", "error", "just text"),
    ],
)
def test_a_failure_says_what_a_person_wants_to_read(
    home: FloeHome, otlp: OtlpReceiver, error: Any, kind: str, message: str
) -> None:
    with telling(config_for(otlp), home) as telemetry:
        span = telemetry.start_span("run", None)
        fail(span, error)
        span.end()
        assert telemetry.flush(10)
    (found,) = otlp.spans()
    assert (found.status, found.status_message, found.attributes["error.type"]) == ("ERROR", message, kind)


def test_headers_and_their_secrets_are_sent(
    home: FloeHome, otlp: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTLP_AUTH", "Basic abc")
    config = config_for(otlp, "grpc", authentication={"headers": {"Authorization": {"env": "OTLP_AUTH"}}})
    with telling(config, home) as telemetry:
        small_trace(telemetry)
        assert telemetry.flush(10)
    assert {request.headers["authorization"] for request in otlp.requests()} == {"Basic abc"}


@pytest.mark.parametrize("end", [Telemetry.flush, Telemetry.close])
def test_the_end_may_come_twice(
    home: FloeHome, otlp: OtlpReceiver, end: Callable[[Telemetry, float], Any]
) -> None:
    with telling(config_for(otlp), home) as telemetry:
        small_trace(telemetry)
        end(telemetry, 10)
        end(telemetry, 10)
        # Whoever comes after the end disturbs nobody.
        with telemetry.span("late", None):
            pass
        telemetry.instruments.add("rows", 1)
    assert len(otlp.spans()) in (2, 3)
