"""An OAuth2 token endpoint on this machine, whose answers a test decides."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs

from tests.receivers.serving import Answer, serving


@dataclass
class TokenEndpoint:
    """What was asked, and what is answered."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    """The next ones, in this order; the last one stays."""
    asked: list[dict[str, str]] = field(default_factory=list)
    """The forms that came."""
    headers: list[dict[str, str]] = field(default_factory=list)
    pause: float = 0.0
    """Seconds before an answer, and again after each of its bytes."""

    def issues(self, token: str, **more: object) -> None:
        """Answer with a token from now on."""
        body = json.dumps({"access_token": token, "token_type": "Bearer", **more}).encode()
        self.answers = [Answer(200, body)]


@contextlib.contextmanager
def token_endpoint(make: Callable[[], str] | None = None) -> Iterator[TokenEndpoint]:
    """Serve one; with `make`, each answer holds the token that it returns."""
    endpoint = TokenEndpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            form = parse_qs(self.rfile.read(length).decode(), strict_parsing=True)
            endpoint.asked.append({name: value for name, (value,) in form.items()})
            endpoint.headers.append(dict(self.headers))
            if make is not None:
                endpoint.issues(make(), expires_in=3600)
            answer = endpoint.answers[0]
            if len(endpoint.answers) > 1:
                del endpoint.answers[0]
            time.sleep(endpoint.pause)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            pieces = [answer.body] if not endpoint.pause else [bytes([byte]) for byte in answer.body]
            for piece in pieces:
                self.wfile.write(piece)
                self.wfile.flush()
                time.sleep(endpoint.pause)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with serving(Handler) as address:
        endpoint.url = f"{address}/token"
        yield endpoint
