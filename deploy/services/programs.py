"""The programs that services are: whether they are there, how they are run, and how they end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

STOP_SECONDS = 20
INSTALL = {
    "go": "apt-get install golang, or https://go.dev/dl (1.24 or newer): it builds MinIO and the collector",
    "java": "apt-get install openjdk-17-jdk: it runs the REST catalog",
    "javac": "apt-get install openjdk-17-jdk: it compiles the REST catalog's main",
    "mvn": "apt-get install maven: it fetches the REST catalog",
}


class ServiceError(Exception):
    """A service cannot be built or started; the message says what to do."""


def open_private(path: str, flags: int) -> int:
    """Open a log for its owner alone: services begin it with their settings, secrets among them."""
    descriptor = os.open(path, flags, 0o600)
    # One of an earlier version is there for everybody.
    os.fchmod(descriptor, 0o600)
    return descriptor


def need(tool: str) -> None:
    """Check that a program is there.

    Raises:
        ServiceError: It is not; with how to get it.
    """
    if shutil.which(tool) is None:
        raise ServiceError(f"{tool} is missing: {INSTALL[tool]}")


def run(command: list[str], **options: Any) -> None:
    """Run a program to its end.

    Args:
        command: With its arguments.
        options: Of `subprocess.run`.

    Raises:
        ServiceError: It fails; with the end of what it printed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise ServiceError(f"`{' '.join(command[:4])} …` failed:\n{(done.stdout + done.stderr)[-3000:]}")


def stop_process(pid: int, how: signal.Signals = signal.SIGTERM) -> None:
    """End one service and wait for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, how)
    deadline = time.monotonic() + STOP_SECONDS
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    if is_alive(pid):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and is not waited for yet does not."""
    with contextlib.suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


def free_port() -> int:
    """Return a port of the loopback address that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
