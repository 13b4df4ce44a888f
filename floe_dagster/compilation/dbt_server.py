"""Starts dbt commands as forks of a process that has imported dbt already (`dbt_forks`).

Importing dbt takes longer than parsing a usual project, and than many a run. Each command has a process, a process group and
an environment of its own, as if it was started by itself, and sees neither the others nor who has asked for it.

A fork is what its server was when it started, so what only a program's start takes notice of cannot be another for a command:
such a command is refused, and the caller starts it by itself. All else of its environment dbt reads when a command begins.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from floe_dagster.compilation.dbt_environment import confined, passed_variables

START_SECONDS = 120.0
"""So long the server may take to begin a command: it may have to import dbt first, on a busy machine."""
END_SECONDS = 1.0
"""So long the server may take to end its commands."""
_CODE = "from floe_dagster.compilation.dbt_forks import main; main()"
_READ_AT_START = ("PYTHON", "LD_", "MALLOC_", "GLIBC_", "OMP_", "OPENBLAS_", "LC_", "LANG")
_NO_MATTER = frozenset({"PYTHONUNBUFFERED"})
"""Forks write each line at once."""
_ENDED = "the process that starts dbt ended"
_SILENT = "the process that starts dbt does not answer"


class ForkedDbt:
    """A dbt command that runs, with the methods of `subprocess.Popen` that a step needs.

    Attributes:
        pid: Of its process, which leads a group of its own. The id is nobody else's before `close`.
        args: Of the command.
        stdout: What it prints, as it prints it; None where that goes elsewhere.
        returncode: Exit code, or the negative number of the signal that ended it; None while it runs.
        is_lost: Whether the server has ended under it, and it with the server.
    """

    def __init__(self, args: Sequence[str], told: socket.socket, stdout: IO[bytes] | None) -> None:
        self.args = list(args)
        self.stdout = stdout
        self.returncode: int | None = None
        self._told = told
        self._lock = threading.Lock()
        self.is_lost = False
        self.pid = 0
        try:
            if not _readable(told, START_SECONDS):
                raise OSError(_SILENT)
            self.pid = int(self._next()["pid"])
        except BaseException:
            self.close()
            raise

    def poll(self) -> int | None:
        """Return `returncode`, after a look whether it has ended."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return `returncode`.

        Args:
            timeout: In seconds; for ever when None.

        Raises:
            subprocess.TimeoutExpired: It has not ended by then.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self._look(_left(deadline))) is None:
            if timeout is not None and _left(deadline) == 0:
                raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def close(self) -> None:
        """Let go of it: what of its process group still runs is killed."""
        if self.stdout is not None:
            self.stdout.close()
        self._told.close()

    def _look(self, seconds: float | None) -> int | None:
        # Several threads may wait; the one message is for all of them.
        if not self._lock.acquire(timeout=-1 if seconds is None else seconds):
            return self.returncode
        try:
            if self.returncode is None and _readable(self._told, seconds):
                self.returncode = self._next().get("code", -signal.SIGKILL)
            return self.returncode
        finally:
            self._lock.release()

    def _next(self) -> dict[str, Any]:
        """Return the next message of the server; where that has ended, nothing, as its commands end with it.

        Raises:
            OSError: The server has ended before the command began.
        """
        message = self._told.recv(1 << 16)
        if not message and self.pid == 0:
            raise OSError(_ENDED)
        self.is_lost = not message
        found: dict[str, Any] = json.loads(message) if message else {}
        return found


def own_dbt() -> Path:
    """Return the dbt of this very environment, whatever PATH says."""
    return Path(sys.executable).with_name("dbt")


class DbtServer:
    """Starts dbt commands; the process that has imported dbt begins with the first one, and again when it has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._environment: dict[str, str] = {}
        self._was_asked = False
        self._owner = os.getpid()

    def warm(self) -> None:
        """Let dbt be imported now, without waiting for it: a command will come. Where that is not possible, nothing happens."""
        with suppress(OSError), self._lock:
            self._started()

    def start(
        self, args: Sequence[str], *, env: Mapping[str, str], cwd: Path, state: Path | None = None
    ) -> ForkedDbt:
        """Start a dbt command, which prints to a pipe; its standard error goes the same way.

        Args:
            args: Arguments of the command, without the program.
            env: The command's whole environment.
            cwd: Its working directory.
            state: What it begins with (see `dbt_command.run_command`).

        Raises:
            OSError: It has to be started by itself: the server cannot be started or has ended, or the environment has what
                only a start takes notice of.
        """
        reading, writing = os.pipe()
        stdout = open(reading, "rb")  # noqa: SIM115  # the process has it
        try:
            told = self._ask(args, env, cwd, state, [writing, writing])
        except BaseException:
            stdout.close()
            raise
        finally:
            os.close(writing)
        return self._begun(args, told, stdout)

    def run(
        self, args: Sequence[str], *, env: Mapping[str, str], cwd: Path, timeout_seconds: float | None
    ) -> subprocess.CompletedProcess[str]:
        """Run one dbt command and return what it printed; see `start`.

        Args:
            args: Arguments of the command, without the program.
            env: The command's whole environment.
            cwd: Its working directory.
            timeout_seconds: After so long it is killed; never when None.

        Raises:
            subprocess.TimeoutExpired: It was.
            OSError: It has to be started by itself, or the server has ended.
        """
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            told = self._ask(args, env, cwd, None, [stdout.fileno(), stderr.fileno()])
            process = self._begun(args, told, None)
            try:
                code = process.wait(timeout_seconds)
            finally:
                process.close()
            if process.is_lost:
                raise OSError(_ENDED)
            texts = []
            for output in (stdout, stderr):
                output.seek(0)
                texts.append(output.read().decode(errors="replace"))
            return subprocess.CompletedProcess(list(args), code, *texts)

    def close(self) -> None:
        """End the server, and the commands that it runs."""
        process, control = self._process, self._control
        self._process = self._control = None
        if process is None or control is None or self._owner != os.getpid():
            return
        # It ends with this socket, and puts an end to what its commands have started.
        control.close()
        if process.returncode is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS if self._was_asked else 0)
        if process.returncode is None:
            # Not waited for yet, so the group is still its own.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _begun(self, args: Sequence[str], told: socket.socket, stdout: IO[bytes] | None) -> ForkedDbt:
        try:
            return ForkedDbt(args, told, stdout)
        except OSError:
            # Whatever keeps it from answering: the next command gets another one, and this one's caller starts it by itself.
            with self._lock:
                self.close()
            raise

    def _ask(
        self, args: Sequence[str], env: Mapping[str, str], cwd: Path, state: Path | None, outputs: list[int]
    ) -> socket.socket:
        """Send a command, and return the socket that tells of it."""
        job = {"args": list(args), "env": dict(env), "cwd": str(cwd), "state": str(state) if state else None}
        message = json.dumps(job).encode()
        with self._lock:
            for is_last in (False, True):
                control = self._started()
                self._refuse(env)
                told, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                try:
                    with theirs:
                        socket.send_fds(control, [message], [theirs.fileno(), *outputs])
                    self._was_asked = True
                    return told
                except OSError:
                    # It has just ended, since nobody had asked for long.
                    told.close()
                    self.close()
                    if is_last:
                        raise
        raise AssertionError

    def _refuse(self, env: Mapping[str, str]) -> None:
        for name in env.keys() | self._environment.keys():
            is_other = env.get(name) != self._environment.get(name)
            if is_other and name.startswith(_READ_AT_START) and name not in _NO_MATTER:
                raise OSError(f"{name} takes effect where a program starts")

    def _started(self) -> socket.socket:
        if sys.platform != "linux":
            # Elsewhere a process that has imported so much may not fork (macOS), or none can (Windows).
            raise OSError("this system cannot fork what has imported dbt")
        if self._owner != os.getpid():
            # A fork has its parent's socket: what it asked for would be its parent's commands.
            self._process, self._control, self._owner = None, None, os.getpid()
        if self._control is None or self._process is None or self._process.poll() is not None:
            self.close()
            self._environment = passed_variables()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    # Not with the working directory on the path: a project may have a folder `dbt`.
                    confined([sys.executable, "-P", "-c", _CODE, str(os.getpid())]),
                    # A fork's own environment hides this one from dbt alone: /proc/self/environ shows what the server began with.
                    env=self._environment,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    # A person's Ctrl-C is for the one who asked, who then ends this.
                    start_new_session=True,
                )
            self._control, self._was_asked = ours, False
        return self._control


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _readable(told: socket.socket, seconds: float | None) -> bool:
    poll = select.poll()
    poll.register(told, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


server = DbtServer()
"""Of this process."""
atexit.register(server.close)
