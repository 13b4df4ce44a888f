"""Progress in the run's log."""

from __future__ import annotations

import logging
import time

from floe_dagster.execution.progress import ProgressLog


class Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def recorder() -> tuple[logging.Logger, Recorder]:
    log, handler = logging.Logger("progress"), Recorder()
    log.addHandler(handler)
    return log, handler


def test_the_first_line_is_logged_at_once_and_the_next_ones_together() -> None:
    log, handler = recorder()
    with ProgressLog(log, interval=60) as progress:
        for line in ("one", "two", "three"):
            progress.line(line)
        assert handler.messages == ["one"]
    assert handler.messages == ["one", "two\nthree"]


def test_a_line_is_not_kept_until_the_next_one_comes() -> None:
    log, handler = recorder()
    progress = ProgressLog(log, interval=0.05)
    progress.line("one")
    progress.line("two")
    deadline = time.monotonic() + 10
    while len(handler.messages) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert handler.messages == ["one", "two"]


def test_lines_are_logged_when_the_work_fails() -> None:
    log, handler = recorder()
    try:
        with ProgressLog(log, interval=60) as progress:
            progress.line("one")
            progress.line("two")
            raise ValueError
    except ValueError:
        pass
    assert handler.messages == ["one", "two"]
