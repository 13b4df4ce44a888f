"""What the command line leaves in a product's `target/`, and how it knows that it still stands."""

from __future__ import annotations

import json
import os
from pathlib import Path

from floe_dagster.atomic import copy_atomically, write_atomically
from floe_dagster.compilation.bundle import ARTIFACT, BAKED_BUNDLE, DBT_MANIFEST, Bundle
from floe_dagster.digests import name_for
from floe_dagster.home import FloeHome

OUTPUT_FILES = (ARTIFACT, DBT_MANIFEST, BAKED_BUNDLE)


def outputs_current(output_dir: Path, digest: str, home: FloeHome) -> bool:
    """Tell whether `output_dir` holds, untouched, what a compilation of `digest` wrote there.

    Only stats are compared, so it costs microseconds whatever the size of the files.
    """
    try:
        record = json.loads(_record(output_dir, home).read_bytes())
        return bool(record == {"digest": digest, "files": _stats(output_dir)})
    except (OSError, ValueError):
        return False


def write_outputs(bundle_path: Path, output_dir: Path, home: FloeHome) -> list[Path]:
    """Write the artifact, dbt's manifest and the bundle itself into `output_dir`, each atomically.

    Args:
        bundle_path: The bundle of a compilation that was not blocked.
        output_dir: Usually `target/` of the product's folder.
        home: Remembers what was written.

    Returns:
        The files that hold something new.

    Raises:
        OSError: The folder cannot be written; files that were not replaced yet are the old ones.
    """
    bundle = Bundle.open(bundle_path)
    written = [
        output_dir / name
        for name in (DBT_MANIFEST, ARTIFACT)
        if write_atomically(output_dir / name, bundle.read(name))
    ]
    if copy_atomically(bundle_path, output_dir / BAKED_BUNDLE):
        written.append(output_dir / BAKED_BUNDLE)
    record = {"digest": bundle.digest, "files": _stats(output_dir)}
    write_atomically(_record(output_dir, home), json.dumps(record).encode())
    return written


def _stats(output_dir: Path) -> dict[str, list[int]]:
    stats = {}
    for name in OUTPUT_FILES:
        found = (output_dir / name).stat()
        stats[name] = [found.st_size, found.st_mtime_ns, found.st_ino]
    return stats


def _record(output_dir: Path, home: FloeHome) -> Path:
    return home.cache_dir / "outputs" / f"{name_for(os.path.abspath(output_dir))}.json"
