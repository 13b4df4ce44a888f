"""A receiver of OTLP over gRPC and over HTTP, that keeps what it gets."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc

from tests.receivers.faults import FaultMode, Receiver
from tests.receivers.serving import Answer, HttpListener
from tests.receivers.telemetry import Log, Metric, Span, logs_of, metrics_of, spans_of
from tests.receivers.tree import Tree

PROTOBUF = "application/x-protobuf"
PORT_SECONDS = 5
STOP_SECONDS = 30
# Requests that a black hole holds take one each.
WORKERS = 64
CODES = {
    FaultMode.STATUS_500: grpc.StatusCode.UNAVAILABLE,
    FaultMode.RESET: grpc.StatusCode.UNAVAILABLE,
    FaultMode.TOO_MANY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    FaultMode.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    FaultMode.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
}
SERVICES: dict[str, tuple[Any, Any, type, Callable[[Any, Any], None]]] = {
    "/v1/traces": (
        trace.ExportTraceServiceRequest,
        trace.ExportTraceServiceResponse,
        trace_grpc.TraceServiceServicer,
        trace_grpc.add_TraceServiceServicer_to_server,
    ),
    "/v1/metrics": (
        metrics.ExportMetricsServiceRequest,
        metrics.ExportMetricsServiceResponse,
        metrics_grpc.MetricsServiceServicer,
        metrics_grpc.add_MetricsServiceServicer_to_server,
    ),
    "/v1/logs": (
        logs.ExportLogsServiceRequest,
        logs.ExportLogsServiceResponse,
        logs_grpc.LogsServiceServicer,
        logs_grpc.add_LogsServiceServicer_to_server,
    ),
}


class Telemetry:
    """Spans, metrics and logs, and the questions that tests have about them."""

    def spans(self) -> list[Span]:
        """Return the spans in order of receipt."""
        raise NotImplementedError

    def metrics(self) -> list[Metric]:
        """Return the points of metrics in order of receipt."""
        raise NotImplementedError

    def logs(self) -> list[Log]:
        """Return the log records in order of receipt."""
        raise NotImplementedError

    def trace_ids(self) -> list[str]:
        """Return the traces in order of their first span's receipt."""
        return list(dict.fromkeys(span.trace_id for span in self.spans()))

    def tree(self, trace_id: str = "") -> Tree:
        """Return a trace as one connected tree.

        Args:
            trace_id: Which one; it may be left out where there is one only.

        Raises:
            AssertionError: The trace is no such tree; with what there is of it.
        """
        if not trace_id:
            found = self.trace_ids()
            assert len(found) == 1, f"{len(found)} traces: {[(s.trace_id, s.name) for s in self.spans()]}"
            trace_id = found[0]
        return Tree(span for span in self.spans() if span.trace_id == trace_id)


class OtlpReceiver(Receiver, Telemetry):
    """Receives OTLP on two free ports of the loopback address.

    Args:
        on_kept: Called with every span, point and record before the sender has its answer.
        certificate: PEM files of a certificate and its key; gRPC is spoken over TLS then.
    """

    def __init__(
        self,
        on_kept: Callable[[Span | Metric | Log], None] | None = None,
        *,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        super().__init__()
        self._certificate = certificate
        self._spans: list[Span] = []
        self._metrics: list[Metric] = []
        self._logs: list[Log] = []
        self._on_kept = on_kept
        self._http = HttpListener(self, self._answer, _refusal)
        self._grpc_port = 0
        self._server: grpc.Server | None = None
        self._workers: futures.ThreadPoolExecutor | None = None
        self.start_listening()

    @property
    def grpc_endpoint(self) -> str:
        """Where gRPC is spoken."""
        return f"{'https' if self._certificate else 'http'}://127.0.0.1:{self._grpc_port}"

    @property
    def http_endpoint(self) -> str:
        """Where HTTP is spoken; exporters append `/v1/traces` and so on."""
        return f"http://127.0.0.1:{self._http.port}"

    def spans(self) -> list[Span]:
        with self._changed:
            return list(self._spans)

    def metrics(self) -> list[Metric]:
        with self._changed:
            return list(self._metrics)

    def logs(self) -> list[Log]:
        with self._changed:
            return list(self._logs)

    def clear(self) -> None:
        """Forget what was received."""
        with self._changed:
            for kept in (self._spans, self._metrics, self._logs, self._requests):
                kept.clear()

    def _keep(self, message: Any) -> None:
        kept: list[Any]
        found: list[Any]
        if isinstance(message, trace.ExportTraceServiceRequest):
            kept, found = self._spans, list(spans_of(message))
        elif isinstance(message, metrics.ExportMetricsServiceRequest):
            kept, found = self._metrics, list(metrics_of(message))
        else:
            kept, found = self._logs, list(logs_of(message))
        with self._changed:
            for one in found:
                kept.append(one)
                if self._on_kept:
                    self._on_kept(one)
            self._announce()

    def _answer(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if path not in SERVICES:
            return _refusal(404, f"{path} is not served")
        request, response, _, _ = SERVICES[path]
        if headers.get("content-type", "").partition(";")[0] != PROTOBUF:
            return _refusal(415, f"the content type has to be {PROTOBUF}")
        try:
            message = request.FromString(body)
        except DecodeError as error:
            return _refusal(400, f"no {request.DESCRIPTOR.name}: {error}")
        self._keep(message)
        return Answer(200, response().SerializeToString(), {"Content-Type": PROTOBUF})

    def _listen(self) -> None:
        self._workers = futures.ThreadPoolExecutor(WORKERS, thread_name_prefix="otlp")
        # A port that two servers share would split what the tests send between them.
        self._server = grpc.server(self._workers, options=[("grpc.so_reuseport", 0)])
        for path, (_, response, servicer, add) in SERVICES.items():
            add(_servicer(self, path, response, servicer), self._server)
        self._grpc_port = _bind(self._server, self._grpc_port, self._certificate)
        self._server.start()
        self._http.start()

    def _unlisten(self) -> None:
        self._http.stop()
        if self._server and self._workers:
            # Without a grace period `stop` itself would wait, for as long as it takes.
            stopped = self._server.stop(0).wait(STOP_SECONDS)
            self._workers.shutdown(wait=False, cancel_futures=True)
            assert stopped, f"the gRPC server did not stop within {STOP_SECONDS} seconds"


def _servicer(receiver: OtlpReceiver, path: str, response: Any, base: type) -> Any:
    def export(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        headers = {str(key): str(value) for key, value in context.invocation_metadata()}
        mode = receiver.admit("grpc", path, headers, context.is_active)
        if mode is None:
            context.abort(grpc.StatusCode.CANCELLED, "nobody waits")
        if mode in CODES:
            if mode is FaultMode.TOO_MANY:
                context.set_trailing_metadata((_retry_info(receiver.retry_after_seconds),))
            context.abort(CODES[mode], f"{mode.name} was asked for")
        receiver._keep(request)
        if mode is FaultMode.SLOW:
            receiver.delay()
        return response()

    return type(base.__name__, (base,), {"Export": export})()


def _retry_info(seconds: int) -> tuple[str, bytes]:
    status = Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="later")
    status.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=seconds)))
    return "grpc-status-details-bin", status.SerializeToString()


def _refusal(status: int, message: str) -> Answer:
    return Answer(status, Status(message=message).SerializeToString(), {"Content-Type": PROTOBUF})


def _bind(server: grpc.Server, port: int, certificate: tuple[Path, Path] | None) -> int:
    """Bind a port; one that was just given back may take a moment."""
    deadline = time.monotonic() + PORT_SECONDS
    credentials = None
    if certificate:
        chain, key = (file.read_bytes() for file in certificate)
        credentials = grpc.ssl_server_credentials([(key, chain)])
    while True:
        try:
            address = f"127.0.0.1:{port}"
            bound = (
                server.add_secure_port(address, credentials)
                if credentials
                else server.add_insecure_port(address)
            )
            if bound:
                return int(bound)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)
