"""Files on their way to an object store, here a folder that takes what a store takes: whole objects by name."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata, new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DecimalType, LongType, NestedField

from floe_dagster.iceberg.layout import TableLayout
from floe_dagster.iceberg.staging import Staging
from floe_dagster.iceberg.uploads import AbandonedError, Growing, is_finished, upload

SCHEMA = Schema(
    NestedField(1, "id", LongType(), required=False),
    NestedField(2, "n", DecimalType(20, 0), required=False),
)
ROWS = "select range as id, hash(range)::decimal(20, 0) as n from range({rows}) order by all"


class _Object:
    """An object that is being written; like PyArrow's, it is complete when it is closed, whatever the reason."""

    def __init__(self, store: Store, location: str) -> None:
        self._store = store
        self._location = location
        self._written = bytearray()

    def __enter__(self) -> _Object:
        return self

    def __exit__(self, *exc: object) -> None:
        self._store.objects[self._location] = bytes(self._written)

    def write(self, chunk: bytes) -> None:
        self._written += chunk
        self._store.begun_at.setdefault(self._location, time.monotonic())
        if len(self._written) > self._store.breaks_at:
            self._store.breaks_at = 1 << 60
            raise OSError("connection reset")


class Store:
    """Takes objects; breaks off once, at the byte `breaks_at`."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.begun_at: dict[str, float] = {}
        self.breaks_at = 1 << 60
        self._location = ""

    def new_output(self, location: str) -> Store:
        made = Store()
        made.__dict__ = self.__dict__ | {"_location": location, "_root": self}
        return made

    def create(self, overwrite: bool) -> _Object:
        root: Store = self.__dict__["_root"]
        return _Object(root, self._location)

    def delete(self, location: str) -> None:
        del self.objects[location]


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as made:
        yield made


@pytest.fixture
def store() -> Store:
    return Store()


def staging_of(
    con: Any, store: Any, scratch: Path, spec: Any = UNPARTITIONED_PARTITION_SPEC, **properties: str
) -> Staging:
    metadata: TableMetadata = new_table_metadata(
        SCHEMA, spec, UNSORTED_SORT_ORDER, "s3://bucket/t", properties
    )
    return Staging(con, store, metadata, TableLayout(), "abc", scratch)


def read_back(con: Any, store: Store, folder: Path) -> tuple[int, ...]:
    folder.mkdir()
    for number, content in enumerate(store.objects.values()):
        (folder / f"{number}.parquet").write_bytes(content)
    rows: tuple[int, ...] = con.execute(
        f"select count(*), sum(id), sum(n), bit_xor(hash(id, n)) from read_parquet('{folder}/*.parquet')"
    ).fetchall()[0]
    return rows


def expected(con: Any, rows: int) -> tuple[int, ...]:
    summed: tuple[int, ...] = con.execute(
        f"select count(*), sum(id), sum(n), bit_xor(hash(id, n)) from ({ROWS.format(rows=rows)})"
    ).fetchall()[0]
    return summed


def test_a_file_is_sent_while_it_is_written_and_arrives_whole(con: Any, store: Store, tmp_path: Path) -> None:
    rows = 8_000_000
    one_file = {"write.target-file-size-bytes": str(1 << 30)}
    staging = staging_of(con, store, tmp_path / "scratch", **one_file)
    was_sent: list[bool] = []

    def hold(value: int) -> int:
        """Keep the last row back until something was sent."""
        patience = time.monotonic() + 30
        while not store.begun_at and time.monotonic() < patience:
            time.sleep(0.01)
        was_sent.append(bool(store.begun_at))
        return value

    con.create_function("hold", hold, ["BIGINT"], "BIGINT")
    held = (
        f"select case when id = {rows - 1} then hold(id) else id end as id, n from ({ROWS.format(rows=rows)})"
    )
    files = staging.write(held, ["id", "n"])
    assert {file.file_path: file.file_size_in_bytes for file in files} == {
        name: len(content) for name, content in store.objects.items()
    }
    assert [file.record_count for file in files] == [rows]
    assert read_back(con, store, tmp_path / "back") == expected(con, rows)
    assert was_sent == [True]
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("breaks_at", [0, 5 << 20, 15 << 20])
def test_a_connection_that_breaks_off_while_the_file_grows(
    con: Any, store: Store, tmp_path: Path, breaks_at: int
) -> None:
    rows = 3_000_000
    store.breaks_at = breaks_at
    staging_of(con, store, tmp_path / "scratch").write(ROWS.format(rows=rows), ["id", "n"])
    assert store.breaks_at == 1 << 60, "nothing broke off"
    assert read_back(con, store, tmp_path / "back") == expected(con, rows)


def test_what_was_sent_before_a_value_did_not_fit_is_removed(con: Any, store: Store, tmp_path: Path) -> None:
    staging = staging_of(con, store, tmp_path / "scratch")
    late = "select id, case when id = 7999999 then error('late')::decimal(20, 0) else n end as n from (?)"
    with pytest.raises(duckdb.Error, match="late"):
        staging.write(late.replace("?", ROWS.format(rows=8_000_000)), ["id", "n"])
    assert store.begun_at, "nothing was sent before"
    staging.discard()
    assert store.objects == {}
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.slow
def test_a_value_that_does_not_fit_always_ends_the_copy(store: Store, tmp_path: Path) -> None:
    """DuckDB's own writing threads make about every twentieth of them wait for ever."""
    script = tmp_path / "fail_often.py"
    script.write_text(
        f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from pathlib import Path
import duckdb
from tests.integration.iceberg.test_uploads import ROWS, Store, staging_of
late = ROWS.format(rows=500_000).replace(" order by all", "")
for attempt in range(100):
    with duckdb.connect() as con:
        staging = staging_of(con, Store(), Path({str(tmp_path / "scratch")!r}))
        try:
            staging.write(
                f"select id, case when id = 499999 then error('late')::decimal(20, 0) else n end as n from ({{late}})",
                ["id", "n"],
            )
        except duckdb.Error as error:
            assert "late" in str(error)
        else:
            raise AssertionError("the value fits")
print("ended")
"""
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.stdout == "ended\n", done.stderr


def test_a_store_that_refuses_ends_the_copy(con: Any, tmp_path: Path) -> None:
    class Refusing(Store):
        def create(self, overwrite: bool) -> Any:
            raise OSError("AWS Error ACCESS_DENIED during CreateMultipartUpload")

        def new_output(self, location: str) -> Refusing:
            return self

    staging = staging_of(con, Refusing(), tmp_path / "scratch")
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        staging.write(ROWS.format(rows=8_000_000), ["id", "n"])
    assert list((tmp_path / "scratch").iterdir()) == []


def test_files_of_partitions_and_of_no_row(con: Any, store: Store, tmp_path: Path) -> None:
    spec = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), "id"))
    query = "select range % 3 as id, 1::decimal(20, 0) as n from range(3000)"
    files = staging_of(con, store, tmp_path / "scratch", spec).write(query, ["id", "n"])
    assert sorted(file.partition[0] for file in files) == [0, 1, 2]
    assert len(store.objects) == 3
    assert staging_of(con, store, tmp_path / "scratch").write(f"{query} limit 0", ["id", "n"]) == []
    assert len(store.objects) == 3


def test_a_growing_file_is_followed_to_its_end(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    ended = threading.Event()

    def write() -> None:
        for number in range(20):
            time.sleep(0.005)
            with path.open("ab") as file:
                file.write(bytes([number]) * 100_000)
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    upload(Growing(path, ended, threading.Event()).chunks, store, "s3://bucket/x", 1)  # type: ignore[arg-type]
    writer.join()
    assert store.objects["s3://bucket/x"] == path.read_bytes()


def test_a_file_that_will_never_be_whole_is_given_up(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"PAR1")
    abandoned = threading.Event()
    threading.Timer(0.1, abandoned.set).start()
    with pytest.raises(AbandonedError):
        upload(Growing(path, threading.Event(), abandoned).chunks, store, "s3://bucket/x", 3)  # type: ignore[arg-type]


def test_a_file_without_its_footer_is_not_finished(con: Any, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.parquet", tmp_path / "part.parquet"
    con.execute(f"copy (select 1 as a) to '{whole}' (format parquet)")
    content = whole.read_bytes()
    assert is_finished(whole)
    # Bytes of a page may look like the end.
    for piece in (b"", content[:4], content[:-4], content[:8] + b"\0" * 8 + b"PAR1"):
        part.write_bytes(piece)
        assert not is_finished(part)
    assert not is_finished(tmp_path / "missing.parquet")
