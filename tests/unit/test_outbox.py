"""What lies in an outbox: written by processes that are killed, that run at once, and that find the disk full."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floe_dagster.observability.outbox import REFUSED, Outbox, OutboxFullError
from tests.conftest import ROOT

WRITE = """
import sys, time
from pathlib import Path
from floe_dagster.observability.outbox import Outbox

folder, name, count, segment_bytes = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
outbox = Outbox(folder, segment_bytes=segment_bytes)
for number in range(count):
    outbox.put(f"{name} {number}".encode())
    print(number, flush=True)
if "--stay" in sys.argv:
    time.sleep(600)
"""
TAKE = """
import sys
from pathlib import Path
from floe_dagster.observability.outbox import Outbox

outbox = Outbox(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for segment in outbox.segments():
    while records := segment.read(3):
        for record in records:
            print(record.decode(), flush=True)
        segment.note_sent(records)
    outbox.finish(segment)
"""
FULL = """
import resource, sys
from pathlib import Path
from floe_dagster.observability.outbox import Outbox, OutboxFullError

resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, resource.RLIM_INFINITY))
outbox = Outbox(Path(sys.argv[1]))
outbox.put(b"a" * 900)
try:
    outbox.put(b"b" * 900)
except OutboxFullError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
outbox.put(b"c" * 900)
"""


@contextmanager
def running(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(code: str, *arguments: object) -> str:
    """Run to the end; a process that failed fails the test."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def take(outbox: Outbox, limit: int = 1_000_000, *, others: bool = True) -> list[bytes]:
    """Do what a delivery does, for at most `limit` records of each segment."""
    taken: list[bytes] = []
    for segment in outbox.segments(others=others):
        records = segment.read(limit)
        taken += records
        segment.note_sent(records)
        if segment.read(1):
            segment.release()
        elif not outbox.is_open(segment):
            outbox.finish(segment)
    return taken


def files(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir()) if folder.exists() else []


@settings(deadline=None, max_examples=60)
@given(
    records=st.lists(st.binary(max_size=300).filter(lambda record: b"\n" not in record), max_size=40),
    segment_bytes=st.integers(1, 2_000),
    taken_at=st.sets(st.integers(0, 40)),
    limit=st.integers(1, 7),
)
def test_what_goes_in_comes_out_once_in_order_and_unchanged(
    records: list[bytes], segment_bytes: int, taken_at: set[int], limit: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outbox = Outbox(Path(folder), segment_bytes=segment_bytes)
        out: list[bytes] = []

        def deliver() -> None:
            for segment in outbox.segments():
                while found := segment.read(limit):
                    segment.note_sent(found)
                    out.extend(found)
                if not outbox.is_open(segment):
                    assert outbox.finish(segment)

        for number, record in enumerate(records):
            if number in taken_at:
                deliver()
                assert outbox.pending() == outbox.pending_bytes() == 0
            outbox.put(record)
        waiting = records[len(out) :]
        assert outbox.pending() == len(waiting)
        assert outbox.pending_bytes() == sum(len(record) + 1 for record in waiting)
        deliver()
        assert out == records
        outbox.close()
        assert list(Path(folder).iterdir()) == []


def test_what_one_process_left_is_taken_by_the_next_where_it_stopped(tmp_path: Path) -> None:
    run(WRITE, tmp_path, "a", 10, 4 << 20)
    first = Outbox(tmp_path)
    assert first.pending() == 10
    assert take(first, 4) == [f"a {number}".encode() for number in range(4)]
    assert first.pending() == 6
    second = Outbox(tmp_path)
    assert take(second) == [f"a {number}".encode() for number in range(4, 10)]
    assert (second.pending(), files(tmp_path)) == (0, [])


def test_reading_needs_no_folder(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "none")
    assert (take(outbox), outbox.pending(), outbox.pending_bytes()) == ([], 0, 0)
    outbox.close()
    assert not (tmp_path / "none").exists()


def test_a_killed_writer_loses_no_record_that_it_had_put(tmp_path: Path) -> None:
    with running(WRITE, tmp_path, "a", 1_000_000, 5_000) as writer:
        assert writer.stdout
        said = [writer.stdout.readline() for _ in range(700)]
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.readlines()
    put = int([line for line in said if line.endswith("\n")][-1])
    taken = take(Outbox(tmp_path))
    # It may have been killed between the write and the word about it.
    assert taken in ([f"a {n}".encode() for n in range(put + 1)], [f"a {n}".encode() for n in range(put + 2)])
    assert files(tmp_path) == []


def test_a_record_that_was_not_written_to_its_end_was_never_there(tmp_path: Path) -> None:
    run(WRITE, tmp_path, "a", 3, 4 << 20)
    (segment,) = tmp_path.glob("*.records")
    with segment.open("ab") as file:
        file.write(b"a hal")
    outbox = Outbox(tmp_path)
    assert outbox.pending() == 3
    assert take(outbox) == [b"a 0", b"a 1", b"a 2"]
    assert files(tmp_path) == []


@pytest.mark.parametrize("note", ["", "x", "7 7", "\0\0"])
def test_a_note_of_what_is_sent_that_makes_no_sense_loses_nothing(tmp_path: Path, note: str) -> None:
    run(WRITE, tmp_path, "a", 3, 4 << 20)
    (segment,) = tmp_path.glob("*.records")
    segment.with_suffix(".sent").write_text(note)
    assert take(Outbox(tmp_path)) == [b"a 0", b"a 1", b"a 2"]


def test_nobody_takes_from_a_process_that_lives(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    with running(WRITE, tmp_path, "a", 50, 100, "--stay") as writer:
        assert writer.stdout
        for _ in range(50):
            writer.stdout.readline()
        assert take(outbox) == []
        assert outbox.pending() == 50
    assert take(outbox) == [f"a {number}".encode() for number in range(50)]
    assert files(tmp_path) == []


def test_a_writer_of_the_same_number_in_another_pod_holds_up_nobody(tmp_path: Path) -> None:
    lives, ended = Outbox(tmp_path), Outbox(tmp_path)
    lives.put(b"of one that lives")
    ended.put(b"of one that ended")
    ended.close()
    assert take(Outbox(tmp_path)) == [b"of one that ended"]
    lives.close()


def ended(child: int, seconds: float = 30) -> int:
    """Wait for a forked child; one that hangs is killed."""
    deadline = time.monotonic() + seconds
    while (found := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            found = os.waitpid(child, 0)
            break
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(found[1])


def test_a_forked_child_that_closes_takes_nothing_of_its_parents_along(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(b"parent 0")
    assert take(outbox) == [b"parent 0"]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            # All that is there is delivered, so the owner of the file would remove it.
            outbox.close()
            code = 0
        finally:
            os._exit(code)
    assert ended(child) == 0
    outbox.put(b"parent 1")
    assert take(Outbox(tmp_path)) == []
    assert take(outbox) == [b"parent 1"]


ANOTHER = """
import os, sys, tempfile
from pathlib import Path
from floe_dagster.observability.outbox import Outbox

with tempfile.TemporaryDirectory() as warm:
    # Loads what another user may not be able to read any more.
    outbox = Outbox(Path(warm))
    outbox.put(b"1")
    outbox.close()
    for segment in outbox.segments():
        segment.path.owner()
        segment.remove()
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
outbox = Outbox(Path(sys.argv[1]))
print(list(outbox.segments()), *outbox.unreachable.items(), *outbox.look_for_unreachable().items())
"""


@pytest.mark.parametrize("closed", [".records.lock", ".records"])
def test_a_segment_that_another_user_may_not_open_is_named_and_left_alone(closed: str) -> None:
    # Below a folder that others may enter, which those of pytest are not.
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        outbox = Outbox(folder)
        outbox.put(b"1")
        outbox.close()
        folder.chmod(0o777)
        (path,) = folder.glob("*.records")
        for entry in folder.iterdir():
            entry.chmod(0 if entry.name.endswith(closed) else 0o666)
        told = run(ANOTHER, folder)
        assert told.startswith("[] ") and told.count("Permission denied") == 2
        assert told.count(f"{path.owner()}'s") == 2 and told.count(path.name) == 2
        path.chmod(0o600)
        assert path.read_bytes() == b"1\n"
    finally:
        shutil.rmtree(folder)


def test_a_forked_child_writes_its_own_and_leaves_its_parents_alone(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(b"parent 0")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            outbox.put(b"child 0")
            outbox.put(b"child 1")
            code = 0
        finally:
            os._exit(code)
    assert ended(child) == 0
    # The parent's is still its own: a third one gets the child's only.
    assert take(Outbox(tmp_path)) == [b"child 0", b"child 1"]
    outbox.put(b"parent 1")
    assert take(outbox) == [b"parent 0", b"parent 1"]
    outbox.close()
    assert files(tmp_path) == []


def test_two_that_write_and_one_that_takes_at_once(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    taken: list[bytes] = []
    with running(WRITE, tmp_path, "a", 400, 60) as first, running(WRITE, tmp_path, "b", 400, 60) as second:
        while first.poll() is None or second.poll() is None:
            taken += take(outbox)
    taken += take(outbox)
    for name in ("a", "b"):
        own = [record for record in taken if record.startswith(name.encode())]
        assert own == [f"{name} {number}".encode() for number in range(400)]
    assert files(tmp_path) == []


def test_two_that_take_at_once_take_every_record_once(tmp_path: Path) -> None:
    for name in "abcde":
        run(WRITE, tmp_path, name, 100, 40)
    with running(TAKE, tmp_path) as first, running(TAKE, tmp_path) as second:
        takers = (first, second)
        for taker in takers:
            assert taker.stdin and taker.stdout and taker.stdout.readline() == "ready\n"
        for taker in takers:
            assert taker.stdin
            taker.stdin.write("go\n")
            taker.stdin.flush()
        taken: Counter[str] = Counter()
        for taker in takers:
            assert taker.stdout
            taken.update(taker.stdout.read().splitlines())
            assert taker.wait() == 0
    # A segment that one finishes while the other looks at it is not read again; nothing is missing.
    assert taken == Counter(f"{name} {number}" for name in "abcde" for number in range(100))
    assert files(tmp_path) == []


def test_at_its_limit_it_keeps_the_oldest_and_says_so(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, limit_bytes=1_000, segment_bytes=100)
    put = 0
    with pytest.raises(OutboxFullError, match="nobody took") as refused:
        for put in range(1_000):
            outbox.put(b"%09d" % put)
    assert str(tmp_path) in str(refused.value) or "MiB" in str(refused.value)
    assert 1_000 <= outbox.pending_bytes() <= 1_100
    with pytest.raises(OutboxFullError):
        outbox.put(b"still full")
    assert take(outbox) == [b"%09d" % number for number in range(put)]
    # There is room again.
    outbox.put(b"next")
    assert take(outbox) == [b"next"]


def test_the_limit_counts_what_other_processes_left(tmp_path: Path) -> None:
    run(WRITE, tmp_path, "a", 100, 100)
    with pytest.raises(OutboxFullError):
        Outbox(tmp_path, limit_bytes=300).put(b"x")
    Outbox(tmp_path, limit_bytes=10_000).put(b"x")


def test_a_disk_that_is_full_tears_no_record_that_comes_later(tmp_path: Path) -> None:
    assert "takes no more" in run(FULL, tmp_path)
    assert take(Outbox(tmp_path)) == [b"a" * 900, b"c" * 900]


def test_a_file_in_the_folders_place_is_an_error_of_the_outbox(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("")
    outbox = Outbox(tmp_path / "outbox")
    with pytest.raises(OutboxFullError, match="takes no more"):
        outbox.put(b"x")
    assert (outbox.pending(), take(outbox)) == (0, [])


def test_refused_records_stay_aside(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(b"good")
    outbox.refuse(b"bad")
    outbox.refuse(b"worse")
    assert outbox.pending() == 1
    assert take(outbox) == [b"good"]
    outbox.close()
    assert [path.name for path in tmp_path.iterdir()] == [REFUSED]
    assert (tmp_path / REFUSED).read_bytes() == b"bad\nworse\n"
    assert take(Outbox(tmp_path)) == []


def test_what_is_not_delivered_at_the_end_is_left_to_others(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    for number in range(3):
        outbox.put(b"%d" % number)
    other = Outbox(tmp_path)
    assert take(other) == []
    outbox.close()
    assert take(other) == [b"0", b"1", b"2"]
    # And it may go on.
    outbox.put(b"3")
    outbox.close()
    assert take(other) == [b"3"]
    assert files(tmp_path) == []


@pytest.mark.parametrize(("note", "left"), [("-5", 3), ("-999999", 3), ("4", 2), ("999999", 0)])
def test_a_note_of_what_is_sent_is_kept_within_the_file(tmp_path: Path, note: str, left: int) -> None:
    run(WRITE, tmp_path, "a", 3, 4 << 20)
    (segment,) = tmp_path.glob("*.records")
    segment.with_suffix(".sent").write_text(note)
    outbox = Outbox(tmp_path)
    assert outbox.pending() == left
    assert outbox.pending_bytes() == left * 4
    assert take(outbox) == [b"a 0", b"a 1", b"a 2"][3 - left :]
    assert files(tmp_path) == []


def test_what_is_no_regular_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "1-1-a.records").mkdir()
    os.mkfifo(tmp_path / "2-2-b.records")
    outbox = Outbox(tmp_path)
    outbox.put(b"x")
    assert (outbox.pending(), outbox.pending_bytes(), take(outbox)) == (1, 2, [b"x"])
    outbox.close()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(WRITE, tmp_path, "a", 1, 4 << 20)
    (path,) = tmp_path.glob("*.records")

    def broken(*arguments: object, **options: object) -> None:
        raise OSError(5, "Input/output error")

    (segment,) = Outbox(tmp_path).segments()
    monkeypatch.setattr(Path, "open", broken)
    with pytest.raises(OSError, match="Input/output error") as error:
        segment.read(1)
    assert error.value.filename == str(path)


def test_what_is_refused_has_a_limit(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, refused_limit_bytes=10)
    outbox.refuse(b"12345")
    with pytest.raises(OutboxFullError, match=r"refused\.records holds"):
        outbox.refuse(b"12345")
    outbox.refuse(b"123")
    assert outbox.refused() == 2
    (tmp_path / REFUSED).unlink()
    (tmp_path / REFUSED).mkdir()
    with pytest.raises(OSError):
        outbox.refuse(b"1")
