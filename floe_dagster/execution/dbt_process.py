"""The process of a dbt command: how it is started, what it says, and that it ends with its step, however that ends."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import orjson

from floe_dagster.compilation.dbt_batches import CONTINUE_FROM
from floe_dagster.compilation.dbt_environment import confined
from floe_dagster.compilation.dbt_server import ForkedDbt, own_dbt, server
from floe_dagster.execution.errors import DbtError

INTERRUPT_SECONDS = 5
"""So long dbt may take to cancel its queries and end; a query that waits for a disk or a pipe does not notice."""
KILL_SECONDS = 10
LINGER_SECONDS = 10
"""So long what dbt started may live on after it."""
_log = logging.getLogger("floe_dagster")


class DbtProcess(Protocol):
    """A dbt that goes on, and leads a process group of its own; `subprocess.Popen` is one."""

    @property
    def pid(self) -> int:
        """Its id, and that of its group."""

    @property
    def returncode(self) -> int | None:
        """As of `subprocess.Popen`; None as long as nobody has found that it ended."""

    @property
    def stdout(self) -> IO[bytes] | None:
        """What it prints, also as errors, as it comes."""

    def poll(self) -> int | None:
        """Return `returncode`, after a look whether it ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return `returncode`.

        Args:
            timeout: Seconds; for ever when None.

        Raises:
            subprocess.TimeoutExpired: It goes on.
        """

    def send_signal(self, sig: int) -> None:
        """Send it a signal, where it goes on."""


class StartDbt(Protocol):
    """Starts a dbt that ends with this process, and sees no other."""

    def __call__(
        self, args: Sequence[str], env: Mapping[str, str], cwd: Path, state: Path | None = None
    ) -> DbtProcess:
        """Start it.

        Args:
            args: The program, and its arguments.
            env: Its whole environment.
            cwd: Its working directory.
            state: What dbt has parsed already (see `parse_state`); whoever cannot begin with it parses.
        """


def start_dbt(
    args: Sequence[str], env: Mapping[str, str], cwd: Path, state: Path | None = None
) -> DbtProcess:
    """Start dbt from a process that has imported it already, where that can be; see `StartDbt`."""
    if args[0] == str(own_dbt()):
        try:
            return server.start(args[1:], env=env, cwd=cwd, state=state)
        except OSError as error:
            _log.debug("dbt is started by itself, and parses: %s", error)
        if CONTINUE_FROM in env:
            # What `dbt` does, in a process that knows where batches go on.
            args = [sys.executable, "-P", "-m", "floe_dagster.compilation.dbt_command", *args[1:]]
    return start_confined(args, env, cwd)


def start_confined(
    args: Sequence[str], env: Mapping[str, str], cwd: Path, state: Path | None = None
) -> DbtProcess:
    """Start a program as a process of its own; see `StartDbt`."""
    return subprocess.Popen(
        ending_with_parent(args), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(env), cwd=cwd
    )


@dataclass(frozen=True, slots=True)
class DbtProgram:
    """Which dbt a run starts.

    Args:
        executable: Path of the program.
        flags: Global flags, which stand before the command.
        start: How it is started.
    """

    executable: str
    flags: tuple[str, ...] = ()
    start: StartDbt = start_dbt

    @property
    def is_own(self) -> bool:
        """Whether it is the dbt of this very environment, as the compilation's is."""
        return self.executable == str(own_dbt())

    @property
    def shown(self) -> str:
        """How messages call it: with its path, where it is one that somebody has set."""
        return "dbt" if self.is_own else f"dbt ({self.executable}, which was set for this run)"

    def check(self) -> None:
        """Look whether there is a program to start.

        Raises:
            DbtError: There is none, or it may not be executed.
        """
        if not self.is_own and self.start is start_dbt and shutil.which(self.executable) is None:
            raise DbtError(
                f"{self.executable} was set as the dbt of this run, and is no program that may be executed here. Correct its path, "
                "or let the run take the dbt of this environment",
                transient=False,
            )

    def warm(self) -> None:
        """Let dbt be imported now: it will be started."""
        if self.is_own and self.start is start_dbt:
            server.warm()


def dbt_events(process: DbtProcess) -> Iterator[dict[str, Any]]:
    """Yield dbt's structured log events as they come, until it ends; all that it says is printed as well.

    Args:
        process: With `DBT_LOG_FORMAT=json` in its environment.
    """
    with process.stdout or contextlib.nullcontext(()) as lines:
        for line in lines:
            text = line.decode(errors="replace").strip()
            event = _event(text)
            if event is None:
                _print(text)
                continue
            said = str(event["info"]["msg"])
            if event["info"].get("name") == "JinjaLogInfo" and _is_json(said):
                # What the macros of Dagster's own dbt package say of columns is for no reader.
                continue
            _print(said)
            yield event
    process.wait()


def _event(text: str) -> dict[str, Any] | None:
    """Return the event that a line holds; None where it is something else, as what a library prints."""
    try:
        event = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    info = event.get("info") if isinstance(event, dict) else None
    is_event = (
        isinstance(info, dict) and {"level", "msg"} <= info.keys() and isinstance(event.get("data"), dict)
    )
    return event if is_event else None


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def ending_with_parent(command: Sequence[str]) -> list[str]:
    """Return a command that is ended when this process is killed, and sees no other process.

    Args:
        command: Path of the program, and its arguments.
    """
    return confined(command, parent=os.getpid())


@contextlib.contextmanager
def owning(process: DbtProcess) -> Iterator[None]:
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
        if isinstance(process, ForkedDbt):
            process.close()


def _end_what_lingers(process: DbtProcess, is_read: threading.Event) -> None:
    process.wait()
    # What it started has its standard output, so whoever reads that would wait as long as it lives. A group that is
    # empty has given its id back, to whomever.
    if _has_group(process) and not is_read.wait(LINGER_SECONDS):
        _signal(process, signal.SIGKILL)


def end(process: DbtProcess) -> None:
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


def _has_group(process: DbtProcess) -> bool:
    try:
        os.killpg(process.pid, 0)
    except (OSError, AttributeError):
        return False
    return True


def _signal(process: DbtProcess, number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        if os.name == "posix" and (process.returncode is not None or os.getpgid(process.pid) == process.pid):
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
