"""The process that has imported dbt, and forks for each command that its owner asks for: `python -c … OWNER`.

Its standard input is a socket. Each message is a command as JSON (`args`, `env`, `cwd`, `state`), and brings three
descriptors: a socket of this one command, and where its standard output and standard error go. On the command's socket the
owner reads the id of its process, and how it ended; closing that socket ends the command. So nothing of a command outlives
the interest in it: each one's process group is ended with its socket, and everything with the owner.

It has one thread, so that a fork has all of it.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any, NoReturn

from floe_dagster.compilation.dbt_child import PR_SET_PDEATHSIG, see_no_other_process
from floe_dagster.compilation.dbt_command import load_manifest, run_command
from floe_dagster.compilation.dbt_macros import parse_dbts_own_macros
from floe_dagster.compilation.dbt_warming import (
    check_documents,
    check_nodes,
    look_for_sources,
    read_and_write_nodes,
)
from floe_dagster.schemas.compute import supported_engines

IDLE_SECONDS = 120.0
"""After so long without a command the server ends: what it has imported takes memory."""
LONGEST_MESSAGE = 1 << 20
PR_SET_NAME = 15
NO_MANIFEST = b"\x81\xa5nodes\x01"
"""A manifest whose nodes are a number, in msgpack: it is refused before anything is made of it."""
_exit_code: list[int] = []
"""Of the command, in its own process."""


@dataclass(slots=True)
class _Command:
    """A command that runs, or has ended and is not yet let go."""

    pid: int
    process: int
    owner: socket.socket


class _Forks:
    def __init__(self, control: socket.socket, owner: int, later: Iterable[Callable[[], object]]) -> None:
        self.control = control
        self.owner = owner
        self.later = [*later]
        self.selector = selectors.DefaultSelector()
        self.commands: dict[int, _Command] = {}
        self.has_macros = False

    def serve(self) -> None:
        """Serve commands until the owner ends, or none has come for a while."""
        self.selector.register(self.control, selectors.EVENT_READ, self._begin)
        self.selector.register(self.owner, selectors.EVENT_READ, self._end_all)
        while ready := self._next_events():
            for key, _events in ready:
                # What came before it in this round may have ended it, and its number may be another's by now.
                if self.selector.get_map().get(key.fd) == key:
                    key.data()
        self._end_all()

    def _next_events(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for something to do. What only some commands need is made ready while there is nothing."""
        while self.later and not self.commands:
            if ready := self.selector.select(0):
                return ready
            self._make_ready()
        return self.selector.select(None if self.commands else IDLE_SECONDS)

    def _make_ready(self) -> None:
        with suppress(Exception):  # a command that needs it meets what is wrong again
            self.later.pop(0)()
        gc.freeze()

    def _begin(self) -> None:
        message, descriptors, _flags, _address = socket.recv_fds(self.control, LONGEST_MESSAGE, 3)
        if len(descriptors) != 3:
            self._end_all()
        job = json.loads(message)
        asked, *outputs = descriptors
        if job["state"] is None and not self.has_macros:
            # It may parse, and then these first. Whoever begins with a manifest does not wait for them.
            while self.later:
                self._make_ready()
            parse_dbts_own_macros(supported_engines())
            check_nodes()
            gc.freeze()
            self.has_macros = True
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._let_go()
            _become(job, outputs, server)
        with suppress(OSError):  # the fork does the same; whoever is first
            os.setpgid(pid, pid)
        for output in outputs:
            os.close(output)
        command = _Command(pid, os.pidfd_open(pid), socket.socket(fileno=asked))
        self.commands[pid] = command
        self._register(command.process, command, self._tell)
        self._register(command.owner, command, self._end)
        with suppress(OSError):
            command.owner.send(json.dumps({"pid": pid}).encode())

    def _register(
        self, what: int | socket.socket, command: _Command, call: Callable[[_Command], None]
    ) -> None:
        self.selector.register(what, selectors.EVENT_READ, lambda: call(command))

    def _tell(self, command: _Command) -> None:
        """Tell how a command ended. Its id stays taken until the owner has done with it."""
        self.selector.unregister(command.process)
        ended = os.waitid(os.P_PID, command.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        with suppress(OSError):
            command.owner.send(json.dumps({"code": code}).encode())

    def _end(self, command: _Command) -> None:
        """The owner wants no more of a command."""
        with suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)
        os.waitpid(command.pid, 0)
        for what in (command.process, command.owner):
            with suppress(KeyError):
                self.selector.unregister(what)
        os.close(command.process)
        command.owner.close()
        del self.commands[command.pid]

    def _end_all(self) -> NoReturn:
        for command in [*self.commands.values()]:
            self._end(command)
        os._exit(0)

    def _let_go(self) -> None:
        """In a fork: hold nothing of the server, nor of other commands."""
        self.selector.close()
        for owner in (self.control, *(command.owner for command in self.commands.values())):
            owner.detach()


def _become(job: dict[str, Any], outputs: list[int], server: int) -> NoReturn:
    """Run a command in this process, a fork, and end it."""
    code = 1
    try:
        with suppress(OSError):
            os.setpgid(0, 0)
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        for number, output in enumerate(outputs, 1):
            os.dup2(output, number)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2:
                with suppress(OSError):  # the one of this folder itself
                    os.close(int(name))
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:
            os._exit(1)
        # The server's own domain holds all forks: one within it keeps this one from the server and from its siblings.
        see_no_other_process()
        os.environ.clear()
        os.environ.update(job["env"])
        time.tzset()
        os.chdir(job["cwd"])
        _be_called(job["args"])
        for stream in (sys.stdout, sys.stderr):
            # Whoever reads it wants each line when it is written.
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        code = run_command(job["args"], job["state"])
    except BaseException:
        import traceback

        traceback.print_exc()
    _exit_code.append(code)
    # Not at once: what dbt's adapters have asked for at the end, as DuckDB's last write to its file, comes before `_leave`.
    sys.exit(code)


def _be_called(args: Sequence[str]) -> None:
    """Be `dbt build` and the like for who looks at processes by name; the command line stays the server's."""
    from dbt.cli.main import cli

    # `debug` may also be the level of a log.
    words = (arg for before, arg in pairwise(["", *args]) if not before.startswith("--log-"))
    command = next((word for word in words if word in cli.commands), "")
    ctypes.CDLL(None).prctl(PR_SET_NAME, f"dbt {command}".strip().encode(), 0, 0, 0)


def _leave() -> None:
    """End a command's process without taking the interpreter apart, which takes long and serves nobody."""
    if _exit_code:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(_exit_code[0])


def main() -> None:
    """Import dbt, then serve; see the module."""
    # What is registered first is called last.
    atexit.register(_leave)
    control, owner = socket.socket(fileno=0), int(sys.argv[1])
    # Whoever ends before this process looks leaves an id that is free; and the socket closes with him.
    watched = os.pidfd_open(owner)
    # What is imported stays: looking through it again and again takes a fifth of the time.
    gc.disable()
    first, *others = supported_engines()
    _import_dbt()
    _load_adapter(first)
    # Later collections need not look at what stays, nor copy its pages in each fork.
    gc.freeze()
    gc.enable()
    # Most projects have one engine, and the first command may be here already.
    _Forks(control, watched, [partial(_load_adapter, engine) for engine in others]).serve()


def _import_dbt() -> None:
    # dbt imports the others when it has something to build.
    for module in (
        "dbt.cli.main",
        "dbt.task.build",
        "dbt_common.clients.agate_helper",
        "multiprocessing.dummy",
    ):
        import_module(module)
    from dbt.contracts.project import Configuration, PackageConfig, ProfileConfig, Project, ProjectFlags

    check_documents((Configuration, PackageConfig, ProfileConfig, Project, ProjectFlags))
    with suppress(Exception):
        load_manifest(NO_MANIFEST)
    read_and_write_nodes()
    look_for_sources()


def _load_adapter(engine: str) -> None:
    from dbt.adapters.factory import FACTORY

    check_documents([FACTORY.load_plugin(engine)])
