"""Becomes another program that sees no other process, and may end with its parent: `python dbt_child.py PID PROGRAM ARGUMENT…`.

A model's SQL may read files, `/proc/<pid>/environ` among them, where the platform's credentials stand in the environment of
the process that started dbt. On Linux the program gets a Landlock domain of its own: the kernel lets it look into no process
outside of it (https://docs.kernel.org/userspace-api/landlock.html, "Ptrace restrictions"), whoever its user is. Landlock has to
restrict something in the file system; it is given back for all of it. A root user loses those capabilities that get past it.

A step that is killed cannot end its dbt, which would keep the lock of the DuckDB file. With a PID other than 0, Linux ends the
program with that process (`prctl(2)`, PR_SET_PDEATHSIG, which survives `execve`); elsewhere it goes on to its end. The program
leads a process group of its own, so that it can be ended together with what it started.

Run as a script, by path and without site packages: it costs a few milliseconds.
"""

import contextlib
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
LOOKING_CAPABILITIES = (19, 21, 38)
"""CAP_SYS_PTRACE, CAP_SYS_ADMIN and CAP_PERFMON: since Linux 6.13 the last two read what ptrace may not."""
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""Numbers of Landlock's system calls, the same on every architecture."""
CREATE_RULESET_VERSION, RULE_PATH_BENEATH = 1, 1
MAKE_CHAR, REFER = 1 << 6, 1 << 13
SCOPE_SIGNAL = 1 << 1


class _Ruleset(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("handled_access_fs", "handled_access_net", "scoped")]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def landlock_version() -> int:
    """Return the version of this system's Landlock; 0 where it has none."""
    if sys.platform != "linux":
        return 0
    return max(0, int(ctypes.CDLL(None).syscall(CREATE_RULESET, None, 0, CREATE_RULESET_VERSION)))


def see_no_other_process() -> bool:
    """Give this process, once it has become another program, a Landlock domain; False where the system has none."""
    version = landlock_version()
    if not version:
        return False
    libc = ctypes.CDLL(None)
    # From version 2 on, moving files between folders is forbidden where no rule allows it.
    rights = MAKE_CHAR | (REFER if version > 1 else 0)
    # From version 6 on it signals no process outside either: one that is aborted may leave its memory in a file.
    ruleset = _Ruleset(rights, 0, SCOPE_SIGNAL if version > 5 else 0)
    size = ctypes.sizeof(ruleset) if version > 5 else ctypes.sizeof(ctypes.c_uint64)
    domain = libc.syscall(CREATE_RULESET, ctypes.byref(ruleset), size, 0)
    if domain < 0:
        return False
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        allowed = _PathBeneath(rights, root)
        if libc.syscall(ADD_RULE, domain, RULE_PATH_BENEATH, ctypes.byref(allowed), 0):
            return False
        for capability in LOOKING_CAPABILITIES:
            # Refused where this process has no right to, and then it has none of them either.
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return not libc.syscall(RESTRICT_SELF, domain, 0)
    finally:
        os.close(root)
        os.close(domain)


def main() -> None:
    """Confine this process, bind it to its parent, then become the program."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    # A shell without job control starts what it has in the background with interrupts ignored, and so would the program be:
    # it could only be killed.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with contextlib.suppress(PermissionError):  # it leads a session already
        os.setpgid(0, 0)
    see_no_other_process()
    if parent and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            # It ended before it could be bound to.
            raise SystemExit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
