"""An answer ends, by its bytes and by its seconds, whatever the other side sends; a whole one is what requests would read."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pytest
import requests

from floe_dagster.bounded_http import AnswerTooLongError, bounded_session, read_answer, read_response

LIMIT = 100_000
SECONDS = 0.5
Sent = Callable[[], Iterable[bytes]]


def head(*lines: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode()


def chunk(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


def sized(content: bytes, *lines: str) -> bytes:
    return head(f"Content-Length: {len(content)}", *lines) + content


def drip() -> Iterator[bytes]:
    yield head("Content-Length: 1000")
    for _ in range(100):
        time.sleep(0.05)
        yield b"x"


def flood() -> Iterator[bytes]:
    yield head("Transfer-Encoding: chunked")
    while True:
        yield chunk(b"x" * 50_000)


BOMB = gzip.compress(b"x" * 50_000_000)

WHOLE: dict[str, tuple[bytes, bytes]] = {
    "sized": (sized(b"word"), b"word"),
    "empty": (sized(b""), b""),
    "as long as it may be": (sized(b"x" * LIMIT), b"x" * LIMIT),
    "chunked": (
        head("Transfer-Encoding: chunked") + chunk(b"wo") + chunk(b"rd" * 40_000) + chunk(b""),
        b"wo" + b"rd" * 40_000,
    ),
    "compressed": (sized(gzip.compress(b"word" * 100), "Content-Encoding: gzip"), b"word" * 100),
}
ENDLESS: dict[str, tuple[Sent, type[Exception]]] = {
    "a byte now and then": (drip, requests.Timeout),
    "for ever": (flood, AnswerTooLongError),
    "a little more": (lambda: [sized(b"x" * (LIMIT + 1))], AnswerTooLongError),
    "compressed": (lambda: [sized(BOMB, "Content-Encoding: gzip")], AnswerTooLongError),
}


@contextmanager
def serving(*answers: Sent) -> Iterator[tuple[str, list[int]]]:
    """Serve one answer after the other; yield the address, and how many connections there were."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections = [0]

    def serve() -> None:
        left = iter(answers)
        sent = next(left, None)
        while sent is not None:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            connections[0] += 1
            with connection:
                try:
                    while sent is not None and connection.recv(65536):
                        for piece in sent():
                            connection.sendall(piece)
                        sent = next(left, None)
                except OSError:
                    sent = next(left, None)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/", connections
    finally:
        listener.close()


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_answer_is_read_and_its_connection_used_again(kind: str) -> None:
    wire, content = WHOLE[kind]
    with (
        serving(lambda: [wire], lambda: [wire]) as (url, connections),
        bounded_session(limit=LIMIT) as session,
    ):
        assert session.get(url).content == content
        assert session.get(url).content == content
        assert connections == [1]


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_answer_ends(kind: str) -> None:
    sent, error = ENDLESS[kind]
    with serving(sent) as (url, _), bounded_session(SECONDS, repeats=0, limit=LIMIT) as session:
        begun = time.monotonic()
        with pytest.raises(error):
            session.get(url)
        assert time.monotonic() - begun < 4 * SECONDS


@pytest.mark.parametrize(
    "wire", [head("Content-Length: 10") + b"word", head("Transfer-Encoding: chunked") + b"a\r\nwo"]
)
def test_an_answer_that_breaks_off_is_an_error(wire: bytes) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(wire)

    threading.Thread(target=serve, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    with listener, bounded_session(repeats=0) as session, pytest.raises(requests.RequestException):
        session.get(url)


@pytest.mark.parametrize(("kind", "end"), [("a byte now and then", "too late"), ("for ever", "too long")])
def test_the_beginning_is_there(kind: str, end: str) -> None:
    with serving(ENDLESS[kind][0]) as (url, _), requests.get(url, stream=True, timeout=5) as response:
        answer = read_response(response, seconds=SECONDS, limit=LIMIT)
        assert answer.end == end and set(answer.content) == {ord("x")} and len(answer.content) <= LIMIT


def test_a_short_read_is_no_end() -> None:
    pieces = iter([b"a", b"b", b""])
    answer = read_answer(lambda _size: next(pieces), seconds=5)
    assert (answer.content, answer.end) == (b"ab", "whole")
