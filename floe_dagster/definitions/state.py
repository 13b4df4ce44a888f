"""Which bundle a location serves, and how a new one is stored."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floe_dagster.atomic import copy_atomically
from floe_dagster.compilation.bundle import BAKED_BUNDLE, Bundle, BundleError
from floe_dagster.compilation.manifest_choice import Pin, chain_digest
from floe_dagster.digests import version_of
from floe_dagster.home import FloeHome

if TYPE_CHECKING:
    import dagster as dg

KEPT_VERSIONS = 10
KEPT_SECONDS = 86_400


def state_key(slug: str) -> str:
    """Return the key of a product in Dagster's state storage."""
    return f"FloeProduct[{slug}]"


def pin_newest(slug: str) -> None:
    """Name the newest stored state where definitions are reconstructed and no launch has named one.

    `dg launch`, `dagster job execute`, `dagster asset materialize` and `dg.execute_job` reconstruct definitions without a
    code server: nobody chose a state before. Dagster leaves the context of such a run behind, too, and what the same
    process loads later meets it. In both cases the context names no state of this product, and Dagster by itself would
    find none. What is named here goes on into the run, so that all its processes load the same.

    Args:
        slug: The product's slug.
    """
    from floe_dagster.definitions.dagster_private import (
        DefinitionsLoadContext,
        DefinitionsLoadType,
        DefsStateStorage,
    )

    storage, load, key = DefsStateStorage.get(), DefinitionsLoadContext.get(), state_key(slug)
    # At an initialization Dagster has looked for the newest by itself.
    if storage is None or load.load_type is DefinitionsLoadType.INITIALIZATION or _is_pinned(load, key):
        return
    known = storage.get_latest_defs_state_info()
    newest = known.info_mapping.get(key) if known else None
    if newest is not None:
        load.add_defs_state_info(key, newest.version, newest.create_timestamp)


def pin_none(slug: str) -> None:
    """Name no stored state where a location has no storage to ask: its runs may have one, and load what it served.

    Args:
        slug: The product's slug.
    """
    from floe_dagster.definitions.dagster_private import DefinitionsLoadContext

    DefinitionsLoadContext.get().get_defs_key_state_info(state_key(slug))


def _is_pinned(load: Any, key: str) -> bool:
    """Whether the launch of the run that is reconstructed named a state for the key; "none" is a name as well."""
    from floe_dagster.definitions.dagster_private import DefinitionsLoadType

    # What the context says in public also holds what was looked up since, in this process; only the data that it was
    # made from tell what the launch named. tests/integration/test_rollback.py fails where Dagster calls it otherwise.
    launched = load._repository_load_data
    if load.load_type is DefinitionsLoadType.INITIALIZATION or launched is None:
        return False
    return launched.defs_state_info is not None and key in launched.defs_state_info.info_mapping


def bundles_to_serve(
    stored: Path | None, product_dir: Path, slug: str, digest: str, home: FloeHome, problems: list[str]
) -> Iterator[Bundle]:
    """Yield what a location may serve, best first: what fits the sources, else the stored, else the baked bundle.

    Whoever cannot make use of one takes the next. Where the newest stored state does not fit, as after a rollback to an
    older image, or where the storage forgot which is the newest, one that was stored under the digest of these very
    sources is fetched and pinned: the location's runs then load it, too.

    Args:
        stored: File from Dagster's state storage; None where there is none.
        product_dir: A baked bundle lies in its `target/`.
        slug: The product's slug.
        digest: Of the sources present.
        home: Bundles are kept here, because the stored file may be temporary.
        problems: What is wrong with those that cannot be read is added here.
    """
    candidates: list[Bundle] = []
    for path in (stored, product_dir / "target" / BAKED_BUNDLE):
        if path is None or not path.is_file():
            continue
        try:
            candidates.append(Bundle.open(path))
        except BundleError as error:
            problems.append(str(error))
    fitting = [bundle for bundle in candidates if bundle.digest == digest]
    if not fitting:
        fitting = _stored_before(slug, digest, home)
    for bundle in [*fitting, *candidates]:
        try:
            yield _kept(bundle, home)
        except (OSError, BundleError) as error:
            problems.append(str(error))


def not_pinned(bundle: Bundle, pins: Sequence[Pin]) -> str | None:
    """Return why a state may not be served: it was compiled with a manifest that the platform does not pin; None where it may.

    Args:
        bundle: The state.
        pins: What is pinned.

    Raises:
        BundleError: The bundle cannot be read.
    """
    if not pins:
        return None
    digest = chain_digest(str(layer.get("sha256")) for layer in bundle.report().get("manifest_chain", ()))
    refusing = [pin.name for pin in pins if not pin.allows(digest)]
    if not refusing:
        return None
    return (
        f"the state {bundle.digest[7:19]} was compiled with the manifest {digest}, which {' and '.join(refusing)} does not pin; "
        "it is not served"
    )


def _stored_before(slug: str, digest: str, home: FloeHome) -> list[Bundle]:
    """Return the state of these sources where the storage still holds it though another one is the newest."""
    from floe_dagster.definitions.dagster_private import DefinitionsLoadContext, DefsStateStorage

    storage, load = DefsStateStorage.get(), DefinitionsLoadContext.get()
    key, version = state_key(slug), version_of(digest)
    if storage is None or _is_pinned(load, key):
        return []
    with tempfile.TemporaryDirectory() as folder:
        try:
            storage.download_state_to_path(key, version, Path(folder) / "state")
            bundle = _kept(Bundle.open(Path(folder) / "state"), home)
        except Exception:  # it is not there, or cannot be had: each storage says so in its own way
            return []
    load.add_defs_state_info(key, version)
    return [bundle]


def store_bundle(instance: dg.DagsterInstance, slug: str, bundle: Bundle, home: FloeHome) -> bool:
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
    key, version = state_key(slug), version_of(bundle.digest)
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
    from dagster import UPathDefsStateStorage

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
    target = home.bundle_path(bundle.slug, bundle.digest)
    if not target.exists():
        copy_atomically(bundle.path, target)
    return Bundle.open(target)
