"""How records leave: OTLP over gRPC or HTTP, OpenLineage over HTTP. Nothing here waits in a queue or repeats.

The exporters of the OpenTelemetry SDK and the transports of the OpenLineage client take objects and keep them in memory
until they are sent; these take the bytes that lie in an outbox, so that a later process can send them as well.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from floe_dagster.connections import as_it_is, connection_reason
from floe_dagster.observability.answers import ReceiverAwayError, RecordRefusedError
from floe_dagster.observability.receiver import Receiver
from floe_dagster.schemas.addresses import is_loopback

CONNECT_SECONDS = 5.0
_TRY_AGAIN = frozenset({401, 403, 404, 405, 408, 425, 429, 500, 501, 502, 503, 504})
"""401 to 405 say that the address or the credentials are wrong: once they are mended, the same record is taken."""
_BUSY = frozenset({429, 503})
"""These are about the receiver, whatever the record."""
_GRPC_REFUSED = frozenset({"INVALID_ARGUMENT", "OUT_OF_RANGE", "DATA_LOSS"})
_RETRY_INFO = "grpc-status-details-bin"
_SERVICES = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}

logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


class HttpSender:
    """Posts each record.

    Args:
        receiver: Who takes them.
        content_type: Of the body.
        path: Of the endpoint, below the receiver's address.
        signal: traces or metrics, of which records are requests of OTLP, base64; None where they are sent as they are.
    """

    def __init__(
        self, receiver: Receiver, *, content_type: str, path: str, signal: str | None = None
    ) -> None:
        self.receiver = receiver
        self.url = _below(receiver.url, path)
        self.content_type = content_type
        self.signal = signal
        self._session: Any = None
        self._prepared: tuple[Mapping[str, str], Any, dict[str, Any]] | None = None

    def __call__(self, records: Sequence[bytes]) -> str | None:
        """Send records, one request each.

        Returns:
            What was rejected of those that were taken, in words.

        Raises:
            ReceiverAwayError: It does not answer, or not well.
            RecordRefusedError: It will never take this one.
        """
        if self._session is None:
            self._session = self._open()
        headers = {"Content-Type": self.content_type, **self.receiver.resolved_headers()}
        rejected = None
        for record in records:
            rejected = self._post(_decoded(record) if self.signal else record, headers) or rejected
        return rejected

    def close(self) -> None:
        """End the connection; what is sent after that opens another one."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _open(self) -> Any:
        import requests
        from requests.adapters import HTTPAdapter
        from requests.utils import get_auth_from_url

        address = self.receiver.address()
        self.receiver.authorities()
        session = requests.Session()
        session.mount("http://", HTTPAdapter(max_retries=0))
        session.mount("https://", HTTPAdapter(max_retries=0))
        # Proxy variables do not decide where events of this machine go.
        session.trust_env = not is_loopback(address.hostname)
        user = get_auth_from_url(self.url)
        # What stands in ~/.netrc would replace the manifest's headers.
        session.auth = user if any(user) else as_it_is
        return session

    def _request(self, body: bytes, headers: Mapping[str, str]) -> tuple[Any, dict[str, Any]]:
        """Return a request, and what the environment says of its connection.

        Only the body differs from one record to the next. To make all of it anew takes as long as to send it.
        """
        import requests

        if self._prepared is None or self._prepared[0] != headers:
            first = self._session.prepare_request(
                requests.Request("POST", self.url, headers=headers, data=body)
            )
            # Where only the session knew the certificates, REQUESTS_CA_BUNDLE would win.
            verify = self.receiver.certificate_file or None
            settings = self._session.merge_environment_settings(first.url, {}, None, verify, None)
            self._prepared = headers, first, settings
        _, template, settings = self._prepared
        request = template.copy()
        request.prepare_body(body, None)
        return request, settings

    def _post(self, body: bytes, headers: Mapping[str, str]) -> str | None:
        from requests import RequestException
        from requests.exceptions import InvalidURL
        from urllib3.exceptions import HTTPError, LocationParseError

        from floe_dagster.bounded_http import SMALL_ANSWER_BYTES, read_response

        try:
            request, settings = self._request(body, headers)
            settings = {**settings, "stream": True}
            answer = self._session.send(
                request,
                timeout=(CONNECT_SECONDS, self.receiver.answer_seconds),
                allow_redirects=False,
                **settings,
            )
            # It may have no end: the status counts, the rest is for a person.
            read = read_response(answer, seconds=self.receiver.answer_seconds, limit=SMALL_ANSWER_BYTES)
        except (InvalidURL, LocationParseError):
            raise self.receiver.is_no_address() from None
        except (RequestException, HTTPError, OSError, ValueError) as error:
            raise self.receiver.away(error) from None
        content_type = answer.headers.get("Content-Type", "")
        if answer.status_code < 300:
            if self.signal and "protobuf" in content_type:
                return _rejected(self.receiver, self.signal, read.content)
            return None
        said = _said(read.content, content_type)
        message = f"{self.receiver.shown} answers {answer.status_code}" + (f": {said}" if said else "")
        if answer.status_code in _TRY_AGAIN or answer.status_code < 400:
            raise ReceiverAwayError(
                message,
                _seconds(answer.headers.get("Retry-After")),
                answered=answer.status_code not in _BUSY,
            )
        raise RecordRefusedError(message)


class GrpcSender:
    """Exports each record over OTLP/gRPC; a record is a serialized request, base64.

    Args:
        receiver: Who takes them.
        signal: traces or metrics.
    """

    def __init__(self, receiver: Receiver, *, signal: str) -> None:
        self.receiver = receiver
        self.signal = signal
        self._channel: Any = None
        self._export: Any = None

    def __call__(self, records: Sequence[bytes]) -> str | None:
        """Send records, one call each.

        Returns:
            What was rejected of those that were taken, in words.

        Raises:
            ReceiverAwayError: It does not answer, or not well.
            RecordRefusedError: It will never take this one.
        """
        import grpc

        if self._export is None:
            self._export = self._open()
        metadata = [(name.lower(), value) for name, value in self.receiver.resolved_headers().items()]
        rejected = None
        for record in records:
            try:
                answer = self._export(
                    _decoded(record), timeout=self.receiver.answer_seconds, metadata=metadata or None
                )
                rejected = _rejected(self.receiver, self.signal, answer) or rejected
            except grpc.RpcError as error:
                code = error.code().name
                detail = str(error.details() or "")
                if code in _GRPC_REFUSED:
                    raise RecordRefusedError(
                        f"{self.receiver.shown} refuses: {code.lower()} {detail[:200]}"
                    ) from None
                if code == "DEADLINE_EXCEEDED":
                    raise self.receiver.away("timed out") from None
                if code == "UNAVAILABLE":
                    # gRPC's own words for it are others than those of sockets.
                    if "Failed parsing HTTP/2" in detail:
                        raise ReceiverAwayError(
                            f"{self.receiver.shown} does not speak gRPC; where OTLP over HTTP is served there, set protocol: http"
                        ) from None
                    known = "cannot resolve" if "resolving" in detail else connection_reason(detail)
                    raise self.receiver.away(known or detail[:200]) from None
                asked_to_wait = _retry_info(error) if code == "RESOURCE_EXHAUSTED" else None
                raise ReceiverAwayError(
                    f"{self.receiver.shown} answers {code.lower()}: {detail[:200]}",
                    asked_to_wait,
                    answered=asked_to_wait is None,
                ) from None
        return rejected

    def close(self) -> None:
        """End the connection; what is sent after that opens another one."""
        channel, self._channel, self._export = self._channel, None, None
        if channel is not None:
            channel.close()

    def _open(self) -> Any:
        import grpc

        address = self.receiver.address()
        host = f"[{address.hostname}]" if ":" in (address.hostname or "") else address.hostname
        target = f"{host}:{address.port or 4317}"
        # A channel that sleeps ever longer between its own attempts would not notice that the receiver is back.
        options = [("grpc.max_reconnect_backoff_ms", 5_000), ("grpc.enable_http_proxy", 0)]
        if address.scheme == "https":
            credentials = grpc.ssl_channel_credentials(self.receiver.authorities())
            self._channel = grpc.secure_channel(target, credentials, options=options)
        else:
            self._channel = grpc.insecure_channel(target, options=options)
        # Bytes in, bytes out: what lies in the outbox is what the wire takes.
        return self._channel.unary_unary(_SERVICES[self.signal])


def otlp_sender(receiver: Receiver, signal: str) -> HttpSender | GrpcSender:
    """Return what sends OTLP.

    Args:
        receiver: Who takes it.
        signal: traces or metrics.
    """
    if receiver.protocol == "grpc":
        return GrpcSender(receiver, signal=signal)
    url = receiver.url.rstrip("/")
    for path in ("/v1/traces", "/v1/metrics"):
        url = url.removesuffix(path)
    # The manifest takes host:port as well.
    url = url if "://" in url else f"http://{url}"
    at = replace(receiver, url=url)
    return HttpSender(at, content_type="application/x-protobuf", path=f"/v1/{signal}", signal=signal)


def lineage_sender(receiver: Receiver) -> HttpSender:
    """Return what sends OpenLineage events, to the endpoint that Marquez and others have."""
    return HttpSender(receiver, content_type="application/json", path="/api/v1/lineage")


def _below(url: str, path: str) -> str:
    """Return a path of a receiver, whose address may hold it already, and a query behind it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        # Told as soon as something is sent.
        return url
    base = parts.path.rstrip("/").removesuffix(path)
    return urlunsplit(parts._replace(path=f"{base}{path}", fragment=""))


def _rejected(receiver: Receiver, signal: str, answer: bytes) -> str | None:
    """Return what a receiver rejected of a request that it took; such a request must not be sent again."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        if signal == "traces":
            spans = ExportTraceServiceResponse.FromString(answer).partial_success
            count, what, message = spans.rejected_spans, "spans", spans.error_message
        else:
            points = ExportMetricsServiceResponse.FromString(answer).partial_success
            count, what, message = points.rejected_data_points, "data points", points.error_message
    except DecodeError:
        return None
    said = _in_one_line(message)
    if count:
        return f"{receiver.shown} rejects {count} {what} of a request that it takes" + (
            f": {said}" if said else ""
        )
    return f"{receiver.shown} takes a request and says: {said}" if said else None


def _retry_info(error: Any) -> float | None:
    """Return the seconds that a receiver asks to wait; None where it does not say that it will recover."""
    from google.protobuf.message import DecodeError
    from google.rpc.error_details_pb2 import RetryInfo
    from google.rpc.status_pb2 import Status

    for name, value in error.trailing_metadata() or ():
        if name == _RETRY_INFO:
            try:
                details = Status.FromString(value).details
            except DecodeError:
                return None
            for detail in details:
                info = RetryInfo()
                if detail.Unpack(info):
                    return min(max(float(info.retry_delay.ToMilliseconds()) / 1000, 0.0), 300.0)
    return None


def _said(body: bytes, content_type: str) -> str:
    """Return what an answer says, for a person; OTLP over HTTP says it in a message of protobuf."""
    if "protobuf" in content_type:
        from google.protobuf.message import DecodeError
        from google.rpc.status_pb2 import Status

        try:
            text = str(Status.FromString(body).message)
        except DecodeError:
            text = ""
    else:
        text = body[:2_000].decode(errors="replace")
    return _in_one_line(text)


def _in_one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:200]


def _decoded(record: bytes) -> bytes:
    try:
        return base64.b64decode(record, validate=True)
    except ValueError:
        raise RecordRefusedError("what lies in the outbox is damaged") from None


def _seconds(retry_after: str | None) -> float | None:
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return min(seconds, 300.0) if seconds > 0 else None
