"""The HTTP side of a receiver: HTTP/1.1 with connections that stay, its receiver's faults, and a port to return to."""

from __future__ import annotations

import contextlib
import gzip
import os
import select
import socket
import ssl
import struct
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.receivers.faults import FaultMode, Receiver

STOP_SECONDS = 30
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
            server, self._server = self._server, None
            stop_serving(server)
            server.sever()


def stop_serving(server: ThreadingHTTPServer) -> None:
    """End a server that serves in a thread, and close its port.

    Raises:
        AssertionError: Its thread does not end; `shutdown` itself would wait for it for ever.
    """
    ending = threading.Thread(target=server.shutdown, daemon=True)
    ending.start()
    ending.join(STOP_SECONDS)
    server.server_close()
    assert not ending.is_alive(), f"the HTTP server did not stop within {STOP_SECONDS} seconds"


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Make a certificate of localhost that nobody signed but itself; returns it and its key."""
    made = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
    )
    subject = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*made.split(), *subject], cwd=folder, check=True, capture_output=True, timeout=60)
    return folder / "cert.pem", folder / "key.pem"


@contextlib.contextmanager
def serving(
    handler: type[BaseHTTPRequestHandler], certificate: tuple[Path, Path] | None = None
) -> Iterator[str]:
    """Serve HTTP, or HTTPS with a certificate and its key; gives the address."""
    server = _Quiet(("127.0.0.1", 0), handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        # Who does not finish a handshake while accepting would stop the thread that accepts, and with it `shutdown`.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"{'https' if certificate else 'http'}://localhost:{server.server_address[1]}"
    finally:
        stop_serving(server)


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that give up are part of the tests."""


class _Server(_Quiet):
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
