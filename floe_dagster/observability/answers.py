"""What comes of sending a record: it is taken, its receiver is away, or it is refused for ever."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from floe_dagster.errors import FloeError


class ReceiverAwayError(FloeError):
    """The receiver does not take records now; it may later.

    Args:
        message: What is wrong, for a person.
        retry_after: Seconds that the receiver asks to wait.
        answered: It did answer, so that this one record may be what is wrong.
    """

    def __init__(self, message: str, retry_after: float | None = None, *, answered: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.answered = answered


class RecordRefusedError(FloeError):
    """The receiver will never take this record."""


Send = Callable[[Sequence[bytes]], str | None]
"""Delivers records, in order; raises `ReceiverAwayError` or `RecordRefusedError`.

Returns in words what the receiver rejected of a record that it took otherwise, where there is any.
"""
