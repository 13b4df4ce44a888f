"""Progress in the run's log: every line, but not an event for each.

An event costs milliseconds in Dagster's event log, and a product of 300 models has two thousand lines.
Lines that come within a second share one event.
"""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Any, Self

INTERVAL_SECONDS = 1.0


class ProgressLog:
    """Collects lines and logs them together, at most a second late.

    Args:
        log: A logger.
        interval: Seconds between two events.
    """

    def __init__(self, log: Any, interval: float = INTERVAL_SECONDS) -> None:
        self._log = log
        self._interval = interval
        self._lines: list[str] = []
        self._flushed = 0.0
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def line(self, text: str) -> None:
        """Log a line now where the last event is long enough ago, else with those that follow."""
        with self._lock:
            self._lines.append(text)
            if time.monotonic() - self._flushed >= self._interval:
                self.flush()
            elif self._timer is None:
                # What follows may be minutes away: a model that runs long.
                self._timer = threading.Timer(self._interval, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Log what was collected."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            lines, self._lines = self._lines, []
            self._flushed = time.monotonic()
            if lines:
                self._log.log(logging.INFO, "\n".join(lines))
