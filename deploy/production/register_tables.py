"""Gives a catalog back the tables whose files lie in the warehouse: for one that was lost and not backed up.

python register_tables.py [--dry-run] [--manifest FILE] [NAMESPACE …]

Below the warehouse each folder NAMESPACE/TABLE/metadata is a table; the metadata file that was written last is registered
under that name. What the catalog has already is left alone. The bucket is read with the keys that plugins.storage names; where
it names none, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, which then have to be those of somebody who may read it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pyiceberg.io.pyarrow import PyArrowFileIO

from floe_dagster.compilation.builder import resolved_plugins
from floe_dagster.compilation.inheritance import load_manifest_chain
from floe_dagster.credentials import resolve
from floe_dagster.home import FloeHome, find_project_root
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.storage import storage_of
from floe_dagster.schemas.storage_types import DEFAULT_STORAGE_TYPE

METADATA = re.compile(r"(?:v|)(\d+)(?:-[0-9a-f-]+)?\.(?:gz\.)?metadata\.json(?:\.gz)?")


def main() -> int:
    """Register what is missing; 1 where a table could not be registered."""
    parser = argparse.ArgumentParser(
        prog="register_tables.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "namespaces", nargs="*", metavar="NAMESPACE", help="of the products; all when left out"
    )
    parser.add_argument("--manifest", type=Path, default=os.environ.get("FLOE_MANIFEST"))
    parser.add_argument("--dry-run", action="store_true", help="only say what would be registered")
    options = parser.parse_args()
    if not options.manifest:
        parser.error("which platform? Set FLOE_MANIFEST, or give --manifest")
    path = Path(os.path.abspath(options.manifest))
    merged = load_manifest_chain(path, root=find_project_root(path)).merged
    if merged is None:
        parser.error(f"{path} has errors; `floe-dagster platform check` names them")
    plugins, home = resolved_plugins(merged), FloeHome.locate(path)
    catalog = open_catalog(plugins.catalog, plugins.storage, home=home)
    store = storage_of(plugins.storage.type if plugins.storage else DEFAULT_STORAGE_TYPE)
    settings = _with_keys((plugins.storage.config if plugins.storage else None) or {})
    io = PyArrowFileIO(store.file_io(settings, vended=False))
    failed = 0
    for (namespace, name), files in sorted(tables(store.warehouse(settings, home), io).items()):
        if options.namespaces and namespace not in options.namespaces:
            continue
        if catalog.namespace_exists(namespace) and catalog.table_exists((namespace, name)):
            print(f"there         {namespace}.{name}")
            continue
        found = newest(files, io)
        if found is None:
            print(f"error: {namespace}.{name} has no metadata file that can be read", file=sys.stderr)
            failed += 1
        elif options.dry_run:
            print(f"would register {namespace}.{name}  ({found})")
        else:
            catalog.create_namespace_if_not_exists(namespace)
            catalog.register_table((namespace, name), found)
            print(f"registered    {namespace}.{name}  ({found})")
    return 1 if failed else 0


def tables(warehouse: str, io: PyArrowFileIO) -> dict[tuple[str, str], list[str]]:
    """Return the metadata files of each table below a warehouse, by namespace and name.

    Args:
        warehouse: URI of the folder.
        io: Reads it.
    """
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for location in _files(warehouse.rstrip("/"), io):
        path = PurePosixPath(location.removeprefix(warehouse.rstrip("/")).lstrip("/"))
        if len(path.parts) == 4 and path.parts[2] == "metadata" and METADATA.fullmatch(path.name):
            found[path.parts[0], path.parts[1]].append(location)
    return found


def newest(files: list[str], io: PyArrowFileIO) -> str | None:
    """Return the metadata file that was written last; None where none can be read.

    By what stands in them: a copied bucket has the times of the copy, and a table that was dropped and made again
    begins to count anew.

    Args:
        files: Of one table.
        io: Reads them.
    """
    from pyiceberg.exceptions import ValidationError
    from pyiceberg.serializers import FromInputFile

    written: list[tuple[int, int, str]] = []
    for location in files:
        number = METADATA.fullmatch(PurePosixPath(location).name)
        assert number is not None
        try:
            metadata = FromInputFile.table_metadata(io.new_input(location))
        except (OSError, ValueError, ValidationError) as error:
            print(f"{location} is left out: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        written.append((metadata.last_updated_ms, int(number[1]), location))
    return max(written)[2] if written else None


def _files(warehouse: str, io: PyArrowFileIO) -> Iterator[str]:
    from pyarrow.fs import FileSelector, FileType

    scheme, netloc, base = io.parse_location(warehouse)
    selector = FileSelector(base, allow_not_found=True, recursive=True)
    for info in io.fs_by_scheme(scheme, netloc).get_file_info(selector):
        if info.type == FileType.File:
            yield warehouse + info.path.removeprefix(base)


def _with_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    settings = dict(config)
    for name in ("access_key_id", "secret_access_key"):
        if settings.get(name):
            settings[name] = resolve(settings[name], f"plugins.storage.config.{name}")
    return settings


if __name__ == "__main__":
    raise SystemExit(main())
