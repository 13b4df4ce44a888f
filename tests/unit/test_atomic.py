"""A file is the old or the whole new one, with its permissions from the start, and nothing else is left behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from floe_dagster import atomic
from floe_dagster.atomic import copy_atomically, move_atomically, new_file, write_atomically

WRITERS: dict[str, Callable[[Path, Path], object]] = {
    "write": lambda _source, path: write_atomically(path, b"new"),
    "copy": copy_atomically,
    "move": move_atomically,
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "elsewhere" / "draft"
    file.parent.mkdir()
    file.write_bytes(b"new")
    return file


@pytest.fixture(params=["renames", "another file system"])
def file_system(request: pytest.FixtureRequest, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the source's folder can be renamed to elsewhere, or cannot, as on another file system."""
    if request.param == "renames":
        return
    genuine = os.replace

    def replace(old: str | Path, new: str | Path) -> None:
        if Path(old).parent != Path(new).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        genuine(old, new)

    monkeypatch.setattr(atomic.os, "replace", replace)


@pytest.mark.parametrize("how", WRITERS)
@pytest.mark.parametrize("old", [None, b"old", b"longer than the new one"])
@pytest.mark.usefixtures("file_system")
def test_the_new_file_is_whole_and_alone(how: str, old: bytes | None, source: Path, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    if old is not None:
        path.parent.mkdir(parents=True)
        path.write_bytes(old)
    WRITERS[how](source, path)
    assert path.read_bytes() == b"new" and [*path.parent.iterdir()] == [path]
    assert source.exists() == (how != "move")


@pytest.mark.parametrize("how", WRITERS)
@pytest.mark.usefixtures("file_system")
def test_a_full_disk_leaves_the_old_file(
    how: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "a" / "file"
    path.parent.mkdir()
    path.write_bytes(b"old")
    monkeypatch.setattr(atomic.os, "fsync", full)
    if how == "move" and os.replace.__module__ == "posix":
        monkeypatch.setattr(atomic.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        WRITERS[how](source, path)
    assert path.read_bytes() == b"old" and [*path.parent.iterdir()] == [path]
    assert source.read_bytes() == b"new"


@pytest.mark.parametrize("how", ["write", "copy"])
def test_what_is_there_already_is_left_untouched(how: str, source: Path, tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert WRITERS[how](source, path) is True
    before = path.stat().st_ino
    assert WRITERS[how](source, path) is False and path.stat().st_ino == before


def test_an_interrupted_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), new_file(path) as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("content", [b"secret", b"old"])
@pytest.mark.parametrize("before", [None, 0o644, 0o600])
def test_a_private_file_is_never_anybody_elses(content: bytes, before: int | None, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(b"old")
        path.chmod(before)
    with new_file(tmp_path / "other", mode=0o600) as file:
        assert os.fstat(file.fileno()).st_mode & 0o777 == 0o600
    write_atomically(path, content, mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600 and path.read_bytes() == content
