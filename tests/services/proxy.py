"""A reverse proxy that answers in the server's place, or does something while a request passes."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Rule:
    """What happens to requests.

    Args:
        applies: Called with method and path.
        status: Answer with this status and do not forward.
        headers: Of that answer.
        before: Called before the request is forwarded.
        after: Called when the answer is here and was not sent on yet.
        cut: Close the connection without an answer: `before` or `after` forwarding.
        times: So many requests; then the rule is over.
    """

    applies: Callable[[str, str], bool]
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None
    cut: str | None = None
    times: int = 1


def commits(table: str = "") -> Callable[[str, str], bool]:
    """Match the commits of a table."""
    return lambda method, path: method == "POST" and "/tables/" in path and path.endswith(table)


class FaultProxy:
    """Stands in front of an HTTP server.

    Args:
        upstream: Its URL.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.rules: list[Rule] = []
        self.seen: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None:
                pass

            def _handle(self) -> None:
                body = self._body()
                rule = proxy._rule(self.command, self.path)
                if rule and rule.before:
                    rule.before()
                if rule and rule.cut == "before":
                    self._close()
                    return
                if rule and rule.status is not None:
                    self._answer(
                        rule.status, rule.headers, b'{"error":{"message":"injected","type":"T","code":0}}'
                    )
                    return
                connection = http.client.HTTPConnection(
                    proxy.upstream.hostname or "", proxy.upstream.port, timeout=60
                )
                headers = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() not in ("host", "transfer-encoding", "expect")
                }
                headers["Host"] = self.headers["Host"] or proxy.upstream.netloc
                try:
                    connection.request(self.command, self.path, body or None, headers)
                    answer = connection.getresponse()
                    content = answer.read()
                except OSError:
                    self._close()
                    return
                if rule and rule.after:
                    rule.after()
                if rule and rule.cut == "after":
                    self._close()
                    return
                kept = {
                    n: v
                    for n, v in answer.getheaders()
                    if n.lower() not in ("transfer-encoding", "content-length", "connection")
                }
                self._answer(answer.status, kept, content)

            def _body(self) -> bytes:
                if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = b""
                while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(content)
                except OSError:
                    pass

            def _close(self) -> None:
                self.close_connection = True
                self.connection.close()

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def rule(self, **options: Any) -> Rule:
        """Add a rule."""
        made = Rule(**options)
        with self._lock:
            self.rules.append(made)
        return made

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

    def _rule(self, method: str, path: str) -> Rule | None:
        path = path.partition("?")[0]
        with self._lock:
            self.seen.append((method, path))
            for rule in self.rules:
                if rule.times > 0 and rule.applies(method, path):
                    rule.times -= 1
                    return rule
        return None
