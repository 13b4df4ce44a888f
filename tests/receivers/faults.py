"""What every receiver has in common: how it misbehaves, and how it goes away and comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Self, TypeVar

Found = TypeVar("Found")

GONE_POLL_SECONDS = 0.1
LOOK_SECONDS = 0.2


class FaultMode(Enum):
    """How a receiver treats requests."""

    OK = auto()
    STATUS_500 = auto()
    """HTTP 500; gRPC UNAVAILABLE, the status that exporters take for the server's trouble."""
    TOO_MANY = auto()
    """HTTP 429 with Retry-After; gRPC RESOURCE_EXHAUSTED with RetryInfo."""
    SLOW = auto()
    """Keeps what it is sent, and answers `delay_seconds` later."""
    BLACK_HOLE = auto()
    """Reads, and does not answer until the mode changes; who still waits then is answered in the new mode."""
    RESET = auto()
    """Resets the connection without an answer. gRPC, which owns its connections, says UNAVAILABLE."""
    UNAUTHORIZED = auto()
    BAD_REQUEST = auto()


@dataclass(frozen=True)
class Request:
    """One request that came, whether or not it was accepted.

    Args:
        time: `time.time()` at receipt.
        transport: `grpc` or `http`.
        path: Of the URL, or the name of the RPC.
        headers: Their names in lower case; the metadata of an RPC.
        mode: The receiver's mode when it came.
    """

    time: float
    transport: str
    path: str
    headers: dict[str, str]
    mode: FaultMode


class Receiver:
    """A server whose mode can be switched while it serves.

    Subclasses say in `_listen` and `_unlisten` what it is that listens.
    """

    def __init__(self) -> None:
        self.delay_seconds = 10.0
        self.retry_after_seconds = 1
        self._changed = threading.Condition()
        self._mode = FaultMode.OK
        self._requests: list[Request] = []
        self._changes = 0
        self._listening = 0
        self._listens = False

    @property
    def mode(self) -> FaultMode:
        """How requests are treated; setting it lets go of those that are held."""
        return self._mode

    @mode.setter
    def mode(self, mode: FaultMode) -> None:
        with self._changed:
            self._mode = mode
            self._announce()

    def requests(self) -> list[Request]:
        """Return every request so far, the refused ones, too."""
        with self._changed:
            return list(self._requests)

    def wait_until(self, look: Callable[[], Found], seconds: float = 10, what: str = "") -> Found:
        """Look whenever something came, and now and then, and return what is found.

        Args:
            look: Gives a false value until it is there.
            seconds: After which the wait fails.
            what: What is waited for, for the failure's message.
        """
        deadline = time.monotonic() + seconds
        while True:
            seen = self._changes
            # Without the lock, so that looking may take its time, or send something itself.
            found = look()
            left = deadline - time.monotonic()
            if found:
                return found
            if left <= 0:
                raise AssertionError(f"waited {seconds} s for {what or look}; last seen: {found!r}")
            with self._changed:
                if self._changes == seen:
                    # What is looked for may come from elsewhere, too.
                    self._changed.wait(min(left, LOOK_SECONDS))

    def start_listening(self) -> None:
        """Listen, on the same ports as before."""
        if not self._listens:
            self._listen()
            self._listens = True

    def stop_listening(self) -> None:
        """Refuse connections and end the present ones, like a server that is down; what was received stays."""
        with self._changed:
            self._listening += 1
            self._announce()
        if self._listens:
            self._listens = False
            self._unlisten()

    def close(self) -> None:
        """End."""
        self.stop_listening()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def admit(
        self, transport: str, path: str, headers: dict[str, str], client_waits: Callable[[], bool]
    ) -> FaultMode | None:
        """Note a request, hold it while the receiver is a black hole, and return the mode to answer in.

        Returns:
            None where nobody is left to answer.
        """
        with self._changed:
            self._requests.append(Request(time.time(), transport, path, headers, self._mode))
            self._announce()
            listening = self._listening
            while self._mode is FaultMode.BLACK_HOLE:
                if self._listening != listening or not client_waits():
                    return None
                self._changed.wait(GONE_POLL_SECONDS)
            return self._mode if self._listening == listening and client_waits() else None

    def delay(self) -> bool:
        """Wait as `SLOW` says, or until the mode changes; tell whether the receiver still listens."""
        deadline = time.monotonic() + self.delay_seconds
        with self._changed:
            listening = self._listening
            while self._mode is FaultMode.SLOW and self._listening == listening:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return self._listening == listening

    def _announce(self) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def _listen(self) -> None:
        raise NotImplementedError

    def _unlisten(self) -> None:
        raise NotImplementedError
