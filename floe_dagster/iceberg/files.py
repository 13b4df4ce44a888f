"""Which files a table needs, which lie at its place, and how they are removed."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlparse

if TYPE_CHECKING:
    from pyiceberg.io import FileIO
    from pyiceberg.manifest import ManifestFile
    from pyiceberg.table.metadata import TableMetadata

_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file in a table's folder.

    Args:
        location: As `comparable` gives it.
        uri: To remove it by.
        size: Bytes.
        modified: UTC.
    """

    location: str
    uri: str
    size: int
    modified: datetime


def comparable(location: str) -> str:
    """Return a location so that two spellings of one file are equal: `file:///a`, `file:/a` and `/a`; s3 and s3a."""
    parsed = urlparse(location)
    if parsed.scheme in ("", "file"):
        # As PyIceberg reads it: a percent sign is a percent sign.
        return "/" + (parsed.path if parsed.scheme else location).lstrip("/")
    scheme = "s3" if parsed.scheme in ("s3", "s3a", "s3n") else parsed.scheme
    return f"{scheme}://{location.partition('://')[2]}"


def reachable_files(metadata: TableMetadata, metadata_location: str, io: FileIO) -> dict[str, int]:
    """Return every file that a table needs, with its size where the metadata knows it.

    Live data and delete files of every snapshot, their manifests and manifest lists, statistics, the current metadata
    file and those in its log.

    Args:
        metadata: Of the table.
        metadata_location: Of its current metadata file.
        io: Of the table.
    """
    needed: dict[str, int] = {comparable(metadata_location): 0}
    for entry in metadata.metadata_log:
        needed[comparable(entry.metadata_file)] = 0
    for statistics in (*metadata.statistics, *metadata.partition_statistics):
        needed[comparable(statistics.statistics_path)] = statistics.file_size_in_bytes
    manifests: dict[str, ManifestFile] = {}
    for snapshot in metadata.snapshots:
        if snapshot.manifest_list:
            needed[comparable(snapshot.manifest_list)] = 0
        for manifest in snapshot.manifests(io):
            manifests[manifest.manifest_path] = manifest
            needed[comparable(manifest.manifest_path)] = manifest.manifest_length

    def entries(manifest: ManifestFile) -> list[tuple[str, int]]:
        found = manifest.fetch_manifest_entry(io, discard_deleted=True)
        return [(entry.data_file.file_path, entry.data_file.file_size_in_bytes) for entry in found]

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for listed in pool.map(entries, manifests.values()):
            for path, size in listed:
                needed[comparable(path)] = size
    return needed


def list_files(location: str, io: FileIO) -> list[ListedFile]:
    """Return every file below a table's `data` and `metadata` folders.

    Args:
        location: Of the table.
        io: Of the table; PyArrow's.
    """
    from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem
    from pyiceberg.io.pyarrow import PyArrowFileIO

    from floe_dagster.iceberg.vended import file_io_at

    parsed = urlparse(location)
    root = comparable(location).rstrip("/")
    is_local = parsed.scheme in ("", "file")
    base = root if is_local else PyArrowFileIO.parse_location(location)[2].rstrip("/")
    found = []
    for folder in ("data", "metadata"):
        system: FileSystem = LocalFileSystem()
        if not is_local:
            assert isinstance(io, PyArrowFileIO), f"{type(io).__name__} lists no files"
            system = file_io_at(io, f"{location.rstrip('/')}/{folder}").fs_by_scheme(
                parsed.scheme, parsed.netloc
            )
        selector = FileSelector(f"{base}/{folder}", allow_not_found=True, recursive=True)
        for info in system.get_file_info(selector):
            if info.type != FileType.File:
                continue
            place = f"{root}/{info.path[len(base) + 1 :]}"
            uri = info.path if is_local else place
            modified = info.mtime if info.mtime is not None else datetime.now(UTC)
            found.append(ListedFile(place, uri, int(info.size or 0), modified.astimezone(UTC)))
    return found


def remove_files(uris: Iterable[str], io: FileIO) -> list[str]:
    """Remove files; returns those that could not be removed."""

    def remove(uri: str) -> str | None:
        try:
            io.delete(uri)
        except FileNotFoundError:
            return None
        except OSError:
            return uri
        return None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [uri for uri in pool.map(remove, uris) if uri is not None]
