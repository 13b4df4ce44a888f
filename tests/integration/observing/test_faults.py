"""Receivers that are away, slow or wrong: runs go on, one report each says so, nothing is lost."""

from __future__ import annotations

import http.server
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.observing.process import observe
from floe_dagster.observability.delivery import Delivery
from tests.integration.observing.observed import (
    SECRET,
    Project,
    end_process,
    lineage_to,
    make_product,
    project,
    tracing,
    tree_of,
)
from tests.receivers import FaultMode, LineageReceiver, OtlpReceiver
from tests.receivers.serving import self_signed, serving

pytestmark = pytest.mark.slow

MORE_SECONDS = 10
"""So long a run may be held up by its deliveries; it is a second, and the answers that it would wait for take thirty."""
FIELDS = ("observability.tracing.endpoint", "observability.lineage.endpoint")
SPANS = 18
EVENTS = 12


@dataclass
class Away:
    """A product whose receivers can be switched."""

    project: Project
    product: Path
    job: Any
    otlp: OtlpReceiver
    lineage: LineageReceiver

    def run(self) -> Any:
        return self.job.execute_in_process(instance=self.project.instance, raise_on_error=False)

    def next_process(self) -> None:
        """Open the product as the next process does."""
        end_process()
        result = compile_product(self.product, home=self.project.home)
        assert result.artifact is not None and result.index is not None
        observe(result.artifact, result.index, self.product, self.project.home)

    def switch(self, mode: FaultMode | None) -> None:
        for receiver in (self.otlp, self.lineage):
            if mode is None:
                receiver.stop_listening()
            else:
                receiver.start_listening()
                receiver.mode = mode

    def events(self, run_id: str) -> list[str]:
        return [
            f"{event['job']['name']} {event['eventType']}"
            for event in self.lineage.events()
            if run_id in str(event["run"])
        ]


@pytest.fixture(scope="module", params=["grpc", "http"])
def away(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Away]:
    folder = tmp_path_factory.mktemp("away")
    with OtlpReceiver() as otlp, LineageReceiver() as lineage, project(folder) as made:
        product = make_product(folder, tracing(otlp, request.param), lineage_to(lineage))
        job = made.definitions(product).resolve_job_def("shop_run")
        opened = Away(made, product, job, otlp, lineage)
        ran = opened.run()
        assert ran.success and len(tree_of(otlp, ran.run_id).spans) == SPANS
        assert len(opened.events(ran.run_id)) == EVENTS
        yield opened


@pytest.fixture
def held_up(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that whoever hands records over waits for it, whatever else the machine does meanwhile."""
    seconds: list[float] = []

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            begun = time.monotonic()
            try:
                return method(*arguments)
            finally:
                seconds.append(time.monotonic() - begun)

        return call

    for name in ("put", "flush", "close"):
        monkeypatch.setattr(Delivery, name, timed(getattr(Delivery, name)))
    return seconds


@pytest.mark.parametrize(
    "mode",
    [None, FaultMode.BLACK_HOLE, FaultMode.STATUS_500, FaultMode.SLOW, FaultMode.UNAUTHORIZED],
    ids=["down", "black-hole", "500", "slow", "unauthorized"],
)
def test_a_run_neither_fails_nor_waits_and_all_of_it_arrives_later(
    away: Away,
    mode: FaultMode | None,
    held_up: list[float],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    end_process()
    away.switch(mode)
    try:
        with caplog.at_level(logging.INFO):
            ran = away.run()
        assert ran.success
        assert sum(held_up) < MORE_SECONDS
        told = reports(caplog)
        if mode in (None, FaultMode.STATUS_500, FaultMode.UNAUTHORIZED):
            # One for each kind of records.
            assert len(told) == len(set(told)) <= 3
            for field in FIELDS:
                assert any(line.startswith(f"{field} of shop:") for line in told), told
        waiting = away.project.pending()
        assert waiting["lineage"] > 0 and waiting["traces"] > 0
    finally:
        away.switch(FaultMode.OK)
    printed = capfd.readouterr()
    assert "Traceback" not in printed.err + printed.out
    assert not [record for record in caplog.records if record.exc_info]
    assert SECRET not in caplog.text + printed.err + printed.out

    away.next_process()
    away.otlp.wait_until(lambda: not sum(away.project.pending().values()), 30, "an empty outbox")
    tree = tree_of(away.otlp, ran.run_id)
    assert len(tree.spans) == SPANS
    events = away.events(ran.run_id)
    assert len(events) == len(set(events)) == EVENTS


def reports(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("floe_dagster") and record.levelno >= logging.WARNING
        if any(field in record.getMessage() for field in FIELDS)
    ]


def test_a_host_that_does_not_exist_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with project(tmp_path) as made:
        ran = made.run(
            make_product(
                tmp_path,
                {"exporter": "otlp", "endpoint": "https://collector.invalid:4317"},
                {"transport": "http", "endpoint": "https://marquez.invalid:5000"},
            )
        )
        assert ran.success
        told = reports(caplog)
        assert any(FIELDS[0] in line and "collector.invalid" in line for line in told), told
        assert any(FIELDS[1] in line and "marquez.invalid" in line for line in told), told
        assert len(told) == len(set(told)) <= 3
        assert made.pending()["lineage"] == EVENTS
    printed = capfd.readouterr()
    assert "Traceback" not in printed.err + printed.out


class Accepting(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


def test_a_certificate_that_nobody_trusts_is_refused_until_the_manifest_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    certificate = self_signed(tmp_path)
    with serving(Accepting, certificate) as url, project(tmp_path) as made:
        traced = {"exporter": "otlp", "endpoint": url, "protocol": "http"}
        told_of = {"transport": "http", "endpoint": url}
        product = make_product(tmp_path, traced, told_of)
        assert made.run(product).success
        told = reports(caplog)
        assert all(any(field in line and "certificate" in line for line in told) for field in FIELDS), told
        assert made.pending()["lineage"] == EVENTS
        assert "Traceback" not in capfd.readouterr().err

        # What it has not told yet, it tells at its end: on a busy machine, of the metrics.
        end_process()
        caplog.clear()
        manifest = tmp_path / "manifest-shop.yaml"
        text = manifest.read_text().replace(
            f"endpoint: {url}", f"endpoint: {url}\n    certificate_file: {certificate[0]}"
        )
        manifest.write_text(text)
        assert made.run(product).success
        assert not reports(caplog)
        assert made.pending() == {"lineage": 0, "traces": 0, "metrics": 0}


def test_a_certificate_that_nobody_trusts_is_told_once_over_grpc(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    certificate = self_signed(tmp_path)
    with OtlpReceiver(certificate=certificate) as otlp, project(tmp_path) as made:
        product = make_product(tmp_path, tracing(otlp), None)
        assert made.run(product).success
        # Traces and metrics share the setting, so one of them tells.
        (told,) = reports(caplog)
        assert told.startswith(f"{FIELDS[0]} of shop:") and "certificate is not trusted" in told
        assert otlp.grpc_endpoint in told
        assert made.pending()["traces"] > 0 and otlp.requests() == []
        printed = capfd.readouterr()
        assert "Traceback" not in printed.err + printed.out

        caplog.clear()
        manifest = tmp_path / "manifest-shop.yaml"
        named = f"endpoint: {otlp.grpc_endpoint}\n    certificate_file: {certificate[0]}"
        manifest.write_text(manifest.read_text().replace(f"endpoint: {otlp.grpc_endpoint}", named))
        ran = made.run(product)
        assert ran.success and not reports(caplog)
        otlp.wait_until(lambda: not sum(made.pending().values()), 30, "an empty outbox")
        assert len(tree_of(otlp, ran.run_id).spans) == SPANS
        assert len(otlp.trace_ids()) == 2


@pytest.mark.parametrize("mode", [None, FaultMode.BLACK_HOLE], ids=["down", "black-hole"])
def test_what_waits_goes_to_the_receiver_that_the_manifest_names_now(
    tmp_path: Path, mode: FaultMode | None
) -> None:
    with (
        OtlpReceiver() as gone,
        LineageReceiver() as gone_too,
        OtlpReceiver() as otlp,
        LineageReceiver() as lineage,
        project(tmp_path) as made,
    ):
        for receiver in (gone, gone_too):
            if mode is None:
                receiver.stop_listening()
            else:
                receiver.mode = mode
        product = make_product(tmp_path, tracing(gone), lineage_to(gone_too))
        first = made.run(product)
        assert first.success
        waiting = made.pending()
        assert waiting["lineage"] == EVENTS and waiting["traces"] > 0
        manifest = tmp_path / "manifest-shop.yaml"
        text = manifest.read_text().replace(gone.grpc_endpoint, otlp.grpc_endpoint)
        manifest.write_text(text.replace(gone_too.url, lineage.url))
        second = made.run(product)
        assert second.success
        # What an old request still holds is free as soon as that ends.
        for receiver in (gone, gone_too):
            receiver.stop_listening()
        otlp.wait_until(lambda: not sum(made.pending().values()), 40, "an empty outbox")
        for ran in (first, second):
            assert len(tree_of(otlp, ran.run_id).spans) == SPANS
            assert len([event for event in lineage.events() if ran.run_id in str(event["run"])]) == EVENTS
        assert gone.spans() == [] and gone_too.events() == []
