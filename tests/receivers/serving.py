"""The HTTP side of a receiver: HTTP/1.1 with connections that stay, its receiver's faults, and a port to return to."""

from __future__ import annotations

import contextlib
import gzip
import os
import select
import socket
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.receivers.faults import FaultMode, Receiver

STATUSES = {
    FaultMode.STATUS_500: 500,
    FaultMode.TOO_MANY: 429,
    FaultMode.UNAUTHORIZED: 401,
    FaultMode.BAD_REQUEST: 400,
}


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class HttpListener:
    """Serves a receiver over HTTP.

    Args:
        receiver: Whose mode counts.
        answer: Called with path, headers and the body as it was before compression, for what is to be kept.
        refusal: Makes the answer for a status and a message.
    """

    def __init__(
        self,
        receiver: Receiver,
        answer: Callable[[str, dict[str, str], bytes], Answer],
        refusal: Callable[[int, str], Answer],
    ) -> None:
        self.receiver = receiver
        self.answer = answer
        self.refusal = refusal
        self.port = 0
        self._server: _Server | None = None

    def start(self) -> None:
        """Listen: on a free port the first time, and on the same one from then on."""
        server = _Server(("127.0.0.1", self.port), self)
        self._server = server
        self.port = int(server.server_address[1])
        # The usual interval makes every stop take half a second.
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Close the port and every connection."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server.sever()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], listener: HttpListener) -> None:
        self.listener = listener
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def sever(self) -> None:
        """End the connections that clients keep for their next request."""
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that give up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self._body()
        listener = self.server.listener
        receiver = listener.receiver
        headers = {name.lower(): value for name, value in self.headers.items()}
        mode = receiver.admit("http", self.path, headers, self._client_waits)
        if mode is None or mode is FaultMode.RESET:
            self._reset()
            return
        if mode in STATUSES:
            answer = listener.refusal(STATUSES[mode], f"{mode.name} was asked for")
            if mode is FaultMode.TOO_MANY:
                answer.headers["Retry-After"] = str(receiver.retry_after_seconds)
        else:
            try:
                content = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
            except (OSError, EOFError, zlib.error) as error:
                answer = listener.refusal(400, f"no gzip: {error}")
            else:
                answer = listener.answer(self.path.partition("?")[0], headers, content)
        if mode is FaultMode.SLOW and not receiver.delay():
            self._reset()
            return
        self._send(answer)

    def do_GET(self) -> None:
        self._send(self.server.listener.refusal(405, "only POST is served"))

    def _body(self) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def _client_waits(self) -> bool:
        try:
            readable, _, _ = select.select([self.connection], [], [], 0)
            return not readable or self.connection.recv(1, socket.MSG_PEEK) != b""
        except (OSError, ValueError):
            return False

    def _reset(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            # Without lingering, closing sends RST; a FIN would look like an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
