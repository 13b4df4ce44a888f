"""A control group with a limit of memory, as a container has one: what a pod's limit is to its processes."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def limited(limit: int) -> Iterator[list[str]]:
    """Yield the beginning of a command that runs within `limit` bytes of memory; skips where nobody may make a group.

    Args:
        limit: Bytes.
    """
    parent, limits = _memory_controller()
    group = parent / f"floe-test-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
        for name in limits:
            (group / name).write_text(str(limit))
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"no control group with a limit of memory can be made here: {error}")
    try:
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()


def _memory_controller() -> tuple[Path, list[str]]:
    """Return the folder of this process's own group, and the files that take a limit."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            own = ROOT / "memory" / path.lstrip("/")
            return (own if own.is_dir() else ROOT / "memory"), ["memory.limit_in_bytes"]
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return ROOT / line.removeprefix("0::").lstrip("/"), ["memory.max"]
    pytest.skip("this machine has no control groups")
