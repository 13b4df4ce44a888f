"""Which bundle a location serves, and how a new one is stored."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from floe_dagster.compilation.bundle import BAKED_BUNDLE, Bundle, BundleError
from floe_dagster.home import FloeHome

KEPT_VERSIONS = 10
KEPT_SECONDS = 86_400


def state_key(slug: str) -> str:
    """Return the key of a product in Dagster's state storage."""
    return f"FloeProduct[{slug}]"


def served_bundle(
    stored: Path | None, product_dir: Path, digest: str, home: FloeHome
) -> tuple[Bundle | None, list[str]]:
    """Choose the bundle to serve: the one that fits the sources, else the stored, else the baked one.

    Args:
        stored: File from Dagster's state storage; None where there is none.
        product_dir: A baked bundle lies in its `target/`.
        digest: Of the sources present.
        home: The bundle is kept here, because the stored file may be temporary.

    Returns:
        The bundle, or None, and what was wrong with those that cannot be read.
    """
    problems: list[str] = []
    candidates: list[Bundle] = []
    for path in (stored, product_dir / "target" / BAKED_BUNDLE):
        if path is None or not path.is_file():
            continue
        try:
            candidates.append(Bundle.open(path))
        except BundleError as error:
            problems.append(str(error))
    fitting = [bundle for bundle in candidates if bundle.digest == digest]
    for bundle in [*fitting, *candidates]:
        try:
            return _kept(bundle, home), problems
        except (OSError, BundleError) as error:
            problems.append(str(error))
    return None, problems


def store_bundle(instance: Any, slug: str, bundle: Bundle, home: FloeHome) -> bool:
    """Put a bundle into Dagster's state storage, under its digest as version.

    All keys share one cursor that is read, changed and written, so writers take a lock, and what was
    written is read back. Of older versions the newest `KEPT_VERSIONS` stay, and those of the last
    `KEPT_SECONDS`, which a run that waits in the queue may still ask for.

    Returns:
        False where the instance has no state storage.

    Raises:
        RuntimeError: Another writer's update took the place of this one three times.
    """
    from filelock import FileLock

    storage = instance.defs_state_storage
    if storage is None:
        return False
    key, version = state_key(slug), bundle.digest.removeprefix("sha256:")
    home.locks_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(home.locks_dir / "defs-state.lock", timeout=120):
        for _attempt in range(3):
            storage.upload_state_from_path(key, version=version, path=bundle.path)
            if storage.get_latest_version(key) == version:
                _remove_old_versions(storage, key, version)
                return True
    raise RuntimeError(
        f"the state {version} of {slug} was stored, but others replaced the cursor; run it again"
    )


def _remove_old_versions(storage: Any, key: str, latest: str) -> None:
    from dagster._core.storage.defs_state.blob_storage_state_storage import UPathDefsStateStorage

    if not isinstance(storage, UPathDefsStateStorage):  # others, Dagster+ among them, look after their own
        return
    # Cleaning up is a courtesy: what stays behind harms nobody, and the new state is already served.
    with contextlib.suppress(OSError):
        ages = sorted(
            (time.time() - _modified(entry.stat()), entry)
            for entry in (storage.base_path / storage._sanitize_key(key)).iterdir()
            if entry.name != latest
        )
        for age, entry in ages[KEPT_VERSIONS - 1 :]:
            if age > KEPT_SECONDS:
                entry.unlink(missing_ok=True)


def _modified(found: Any) -> float:
    # An object store without modification times makes everything young: nothing is removed.
    return float(getattr(found, "st_mtime", 0) or time.time())


def _kept(bundle: Bundle, home: FloeHome) -> Bundle:
    target = home.state_dir(bundle.slug) / f"{bundle.digest.removeprefix('sha256:')}.zip"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".state-")
        os.close(handle)
        try:
            shutil.copyfile(bundle.path, temporary)
            os.replace(temporary, target)
        finally:
            Path(temporary).unlink(missing_ok=True)
    return Bundle.open(target)
