"""A process that has imported dbt once, and forks for each command that it is asked to run.

Importing dbt takes longer than parsing a usual project: who compiles several products, or one again and again, waits
for the import once. Each command runs in a process of its own, as `python -m dbt.cli.main` would.

`main` is the server. It reads one JSON object a line from its standard input (`args`, `env`, `cwd`, `stdout`, `stderr`:
the last two are paths) and answers on its standard output with the process id when a command begins, and its exit code
when it ends. It ends when its input does.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

IDLE_SECONDS = 120.0
"""After so long without a command the server ends: what it has imported takes memory."""
_CODE = "from floe_dagster.compilation.dbt_server import main; main()"


class DbtServer:
    """Runs dbt commands, one at a time; started when the first one comes, and again when it has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    def run(
        self, args: Sequence[str], *, env: Mapping[str, str], cwd: Path, timeout_seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """Run one dbt command and return what it printed.

        Args:
            args: Arguments of the command, without the program.
            env: The command's whole environment.
            cwd: Its working directory.
            timeout_seconds: After so long it is killed.

        Raises:
            subprocess.TimeoutExpired: It was.
            OSError: The server cannot be started, has ended, or runs another thread's command.
        """
        if not self._lock.acquire(blocking=False):
            raise OSError("it runs another command")
        try:
            with tempfile.TemporaryDirectory(prefix="floe-dbt-") as folder:
                outputs = [Path(folder) / name for name in ("stdout", "stderr")]
                job = {
                    "args": list(args),
                    "env": dict(env),
                    "cwd": str(cwd),
                    "stdout": str(outputs[0]),
                    "stderr": str(outputs[1]),
                }
                code = self._ask(job, timeout_seconds)
                stdout, stderr = (
                    output.read_text(errors="replace") if output.exists() else "" for output in outputs
                )
                return subprocess.CompletedProcess(list(args), code, stdout, stderr)
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the server."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            # It holds nothing, and would take its time to clean up.
            process.kill()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    assert pipe is not None
                    pipe.close()
            process.wait()

    def _ask(self, job: Mapping[str, Any], timeout_seconds: float) -> int:
        deadline = time.monotonic() + timeout_seconds
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        pid: int | None = None
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
            pid = int(self._line(process.stdout, deadline))
            return int(self._line(process.stdout, deadline))
        except BaseException as error:
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.close()
            if isinstance(error, TimeoutError):
                raise subprocess.TimeoutExpired(list(job["args"]), timeout_seconds) from None
            if isinstance(error, ValueError):
                raise OSError("the process that runs dbt ended") from error
            raise

    def _started(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():
            # A fork has its parent's pipes: what it wrote would be its parent's commands.
            self._process, self._owner = None, os.getpid()
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                # Not with the working directory on the path: a project may have a folder `dbt`.
                [sys.executable, "-P", "-c", _CODE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # A person's Ctrl-C is for the one who asked, who then ends this.
                start_new_session=True,
            )
        return self._process

    @staticmethod
    def _line(pipe: IO[bytes], deadline: float) -> bytes:
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                found = os.read(pipe.fileno(), 1)
                if not found:
                    raise OSError("the process that runs dbt ended")
                line += found
        return line


server = DbtServer()
"""Of this process."""
atexit.register(server.close)


def main() -> None:
    """Serve commands until the input ends, or none has come for a while."""
    from dbt.adapters.factory import FACTORY
    from dbt.cli.main import cli

    FACTORY.load_plugin("duckdb")
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        while selector.select(IDLE_SECONDS):
            line = _read_line()
            if not line:
                return
            pid = os.fork()
            if pid == 0:
                _become(cli, json.loads(line))
            os.write(1, f"{pid}\n".encode())
            _, status = os.waitpid(pid, 0)
            os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _read_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        found = os.read(0, 1 << 16)
        if not found:
            return b""
        line += found
    return line


def _become(cli: Any, job: Mapping[str, Any]) -> NoReturn:
    """Run the command in this process, which is a fork, and end it."""
    code = 1
    try:
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            with open(job[name], "wb") as file:
                os.dup2(file.fileno(), number)
        os.environ.clear()
        os.environ.update(job["env"])
        os.chdir(job["cwd"])
        sys.argv = ["dbt", *job["args"]]
        try:
            cli(job["args"], prog_name="dbt")
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
