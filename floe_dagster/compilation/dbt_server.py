"""A process that has imported dbt once, and forks for each command that it is asked to run.

Importing dbt takes longer than parsing a usual project: who compiles several products, or one again and again, waits
for the import once. Each command runs in a process of its own, as `python -m dbt.cli.main` would.

`main` is the server. It reads one JSON object a line from its standard input (`args`, `env`, `cwd`, `stdout`, `stderr`:
the last two are paths) and answers on its standard output with the command's exit code. It ends when its input does.
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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from floe_dagster.compilation.dbt_environment import confined, passed_variables
from floe_dagster.schemas.compute import supported_engines

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
        self, args: Sequence[str], *, env: Mapping[str, str], cwd: Path, timeout_seconds: float | None
    ) -> subprocess.CompletedProcess[str]:
        """Run one dbt command and return what it printed.

        Args:
            args: Arguments of the command, without the program.
            env: The command's whole environment.
            cwd: Its working directory.
            timeout_seconds: After so long it is killed; never when None.

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
        """End the server, and the command that it runs."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        if process.returncode is None:
            # Not waited for yet, so the group is still its own. It holds nothing that it would have to put away.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                assert pipe is not None
                pipe.close()
        process.wait()

    def _ask(self, job: Mapping[str, Any], timeout_seconds: float | None) -> int:
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
            if not _readable(process.stdout, timeout_seconds):
                assert timeout_seconds is not None
                raise subprocess.TimeoutExpired(list(job["args"]), timeout_seconds)
            answer = process.stdout.readline()
            if not answer.strip().lstrip(b"-").isdigit():
                raise OSError("the process that runs dbt ended")
            return int(answer)
        except BaseException:
            self.close()
            raise

    def _started(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():
            # A fork has its parent's pipes: what it wrote would be its parent's commands.
            self._process, self._owner = None, os.getpid()
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                # Not with the working directory on the path: a project may have a folder `dbt`.
                confined([sys.executable, "-P", "-c", _CODE]),
                # A fork's own environment hides this one from dbt alone: /proc/self/environ shows what the server began with.
                env=passed_variables(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # A person's Ctrl-C is for the one who asked, who then ends this.
                start_new_session=True,
            )
        return self._process


def _readable(pipe: IO[bytes], timeout_seconds: float | None) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        return bool(selector.select(timeout_seconds))


server = DbtServer()
"""Of this process."""
atexit.register(server.close)


def main() -> None:
    """Serve commands until the input ends, or none has come for a while."""
    from dbt.adapters.factory import FACTORY
    from dbt.cli.main import cli

    for engine in supported_engines():
        FACTORY.load_plugin(engine)
    # Who asks waits for the answer, so there is never more than one line to read.
    while _readable(sys.stdin.buffer, IDLE_SECONDS):
        line = sys.stdin.buffer.readline()
        if not line:
            return
        pid = os.fork()
        if pid == 0:
            _become(cli, json.loads(line))
        _, status = os.waitpid(pid, 0)
        os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())


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
