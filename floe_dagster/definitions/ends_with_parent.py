"""Becomes another program that does not outlive whoever started it: `python ends_with_parent.py PID PROGRAM ARGUMENT…`.

A step that is killed cannot end its dbt, which would keep the lock of the DuckDB file. Linux ends it (`prctl(2)`,
PR_SET_PDEATHSIG, which survives `execve`); elsewhere it goes on to its end. The program leads a process group of its own, so
that it can be ended together with what it started.

Run as a script, by path and without site packages: it costs a few milliseconds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Bind this process to its parent, then become the program."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    # A shell without job control starts what it has in the background with interrupts ignored, and so would the program be:
    # it could only be killed.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            # It ended before it could be bound to.
            raise SystemExit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
