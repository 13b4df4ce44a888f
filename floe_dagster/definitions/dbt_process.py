"""The process of a dbt command: it ends with its step, however that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence

from floe_dagster.compilation.dbt_environment import confined

INTERRUPT_SECONDS = 5
"""So long dbt may take to cancel its queries and end; a query that waits for a disk or a pipe does not notice."""
KILL_SECONDS = 10
LINGER_SECONDS = 10
"""So long what dbt started may live on after it."""


def ending_with_parent(command: Sequence[str]) -> list[str]:
    """Return a command that is ended when this process is killed, and sees no other process.

    Args:
        command: Path of the program, and its arguments.
    """
    return confined(command, parent=os.getpid())


@contextlib.contextmanager
def owning(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Read what a process prints in a block that ends with it, and leave neither it nor what it started behind.

    Args:
        process: Of a command from `ending_with_parent`.
    """
    is_read = threading.Event()
    threading.Thread(target=_end_what_lingers, args=[process, is_read], daemon=True).start()
    try:
        yield
    finally:
        is_read.set()
        end(process)


def _end_what_lingers(process: subprocess.Popen[bytes], is_read: threading.Event) -> None:
    process.wait()
    # What it started has its standard output, so whoever reads that would wait as long as it lives. A group that is
    # empty has given its id back, to whomever.
    if _has_group(process) and not is_read.wait(LINGER_SECONDS):
        _signal(process, signal.SIGKILL)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started; politely where it still runs, for a few seconds.

    Args:
        process: Of a command from `ending_with_parent`.
    """
    try:
        if process.poll() is None:
            _signal(process, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(INTERRUPT_SECONDS)
    finally:
        # Whatever interrupts the wait must not leave it running.
        _signal(process, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_SECONDS)


def _has_group(process: subprocess.Popen[bytes]) -> bool:
    try:
        os.killpg(process.pid, 0)
    except (OSError, AttributeError):
        return False
    return True


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        if os.name == "posix" and (process.returncode is not None or os.getpgid(process.pid) == process.pid):
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
