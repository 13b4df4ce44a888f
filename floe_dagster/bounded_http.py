"""HTTP answers that end: the bytes that are read of one, and the seconds that all of it may take, are bounded.

The timeouts of requests, urllib3 and `http.client` bound each wait for the next bytes, and not the answer: who sends a byte now
and then, or sends for ever, is never done. `read_answer` bounds both; `bounded_session` gives sessions that read so by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from requests import PreparedRequest, RequestException, Response, Session, Timeout
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from floe_dagster.errors import FloeError

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
SMALL_ANSWER_BYTES = 256 << 10
"""Of answers that are read for a status, a token or a reason: they have a few kilobytes."""
ANSWER_BYTES = 256 << 20
"""Of all other answers: the metadata of a table with a long history has some ten megabytes."""
ATTEMPTS = 6
BACKOFF_SECONDS = 0.25
_PIECE_BYTES = 64 << 10


class AnswerTooLongError(FloeError, RequestException):
    """An answer has more bytes than anybody may send."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was read of an answer.

    Args:
        content: All of it, or its beginning.
        end: Whether that is all, or why it was not read on.
    """

    content: bytes
    end: Literal["whole", "too long", "too late"]


def read_answer(read1: Callable[[int], bytes], *, seconds: float, limit: int = ANSWER_BYTES) -> Answer:
    """Read an answer until its end, or until one of the bounds.

    Args:
        read1: Returns the bytes that are there, at most so many, and none at the end: `read1` of the answer. Its own timeout bounds
            each wait.
        seconds: How long all of it may take from now on.
        limit: How many bytes it may have.
    """
    deadline = time.monotonic() + seconds
    pieces: list[bytes] = []
    size = 0
    while piece := read1(_PIECE_BYTES):
        size += len(piece)
        if size > limit:
            return Answer(b"".join([*pieces, piece])[:limit], "too long")
        pieces.append(piece)
        if time.monotonic() > deadline:
            return Answer(b"".join(pieces), "too late")
    return Answer(b"".join(pieces), "whole")


def read_response(response: Response, *, seconds: float, limit: int = ANSWER_BYTES) -> Answer:
    """Read the answer of a request with `stream=True`; where a bound ends it, its connection is closed.

    Args:
        response: Of requests.
        seconds: See `read_answer`.
        limit: See `read_answer`.

    Raises:
        urllib3.exceptions.HTTPError: The connection broke.
    """
    # Not `iter_content`: it waits for a whole piece, however slowly it comes.
    answer = read_answer(
        lambda size: response.raw.read1(size, decode_content=True), seconds=seconds, limit=limit
    )
    if answer.end != "whole":
        # What is left of it would be the next request's answer.
        response.close()
    return answer


class _BoundedBody:
    """The raw body of a response, of which requests takes everything else as it is."""

    def __init__(self, raw: Any, seconds: float, limit: int) -> None:
        self._raw, self._seconds, self._limit = raw, seconds, limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, _size: int, decode_content: bool | None = None) -> Iterator[bytes]:
        """Yield the content as `urllib3.HTTPResponse.stream` does, in one piece."""
        answer = read_answer(
            lambda size: self._raw.read1(size, decode_content=decode_content),
            seconds=self._seconds,
            limit=self._limit,
        )
        if answer.end != "whole":
            self._raw.close()
            if answer.end == "too late":
                raise Timeout("timed out")
            raise AnswerTooLongError(f"the answer has more than {self._limit >> 20} MiB")
        yield answer.content


class Repeat(Retry):
    """Repeats reads after any failure, writes where the server has not begun."""

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        """Say whether an answer is no answer yet."""
        if status_code == 429:
            return bool(self.total)
        return super().is_retry(method, status_code, has_retry_after)


class BoundedAdapter(HTTPAdapter):
    """Bounds every wait of a session, and every answer.

    Args:
        answer_seconds: How long one answer may take.
        limit: How many bytes it may have.
        options: Of requests' own.
    """

    def __init__(self, answer_seconds: float, limit: int, **options: Any) -> None:
        self._timeout = (min(CONNECT_SECONDS, answer_seconds), answer_seconds)
        self._limit = limit
        self.repeated = 0
        """How many requests were repeated so far."""
        super().__init__(**options)

    def send(self, request: PreparedRequest, *arguments: Any, **options: Any) -> Response:
        """Send a request; see `HTTPAdapter.send`."""
        if options.get("timeout") is None:
            options["timeout"] = self._timeout
        answer = super().send(request, *arguments, **options)
        self.repeated += len(getattr(getattr(answer.raw, "retries", None), "history", ()))
        answer.raw = _BoundedBody(answer.raw, self._timeout[1], self._limit)
        return answer


def bounded_session(
    answer_seconds: float = ANSWER_SECONDS, *, repeats: int | None = None, limit: int = ANSWER_BYTES
) -> Session:
    """Return a session whose requests end: each wait is bounded, and so are the answers and the repeats.

    Args:
        answer_seconds: How long one answer may take.
        repeats: How often a request is repeated at most, with a pause that doubles from 0.25 s; `ATTEMPTS` are made when None.
        limit: How many bytes an answer may have.
    """
    retry = Repeat(
        total=ATTEMPTS - 1 if repeats is None else repeats,
        backoff_factor=BACKOFF_SECONDS,
        backoff_jitter=BACKOFF_SECONDS,
        backoff_max=8.0,
        status_forcelist=(500, 502, 503, 504),
        allowed_methods=("GET", "HEAD"),
        raise_on_status=False,
    )
    session = Session()
    adapter = BoundedAdapter(answer_seconds, limit, max_retries=retry, pool_maxsize=16)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session
