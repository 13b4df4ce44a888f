"""The compilation of one product: LOAD, VALIDATE, RESOLVE, ENFORCE, COMPILE, GENERATE.

| stage | what it does |
|---|---|
| LOAD | snapshots the sources, reads `floe.yaml` and the manifest chain |
| VALIDATE | documents against their schemas, `dbt parse` on the snapshot, transforms against dbt's graph |
| RESOLVE | merges governance, stricter wins; picks plugins and resources |
| ENFORCE | runs the policies on dbt's manifest |
| COMPILE | builds the artifact and the asset index |
| GENERATE | writes the bundle, has it loaded as a code location would, lays it into its place unless something blocks |

dbt reads a snapshot, never the working tree: what was checked is what the bundle holds, even where
somebody saves a file in the middle.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from floe_dagster.compilation.bundle import Bundle, BundleError
from floe_dagster.compilation.manifest_choice import ManifestChoice
from floe_dagster.compilation.orchestrator import Orchestrator
from floe_dagster.compilation.product_folder import missing_product
from floe_dagster.compilation.result import CompileResult
from floe_dagster.compilation.sources import SourceState, source_state
from floe_dagster.digests import name_for, version_of
from floe_dagster.findings import Finding
from floe_dagster.home import FloeHome

KEPT_BUNDLES = 5
"""How many bundles of a product stay in `FLOE_HOME`; a run may still execute an older one."""
LOCK_TIMEOUT_SECONDS = 600.0

OnStage = Callable[[str], None]


def compile_product(
    product_dir: Path,
    *,
    manifest: Path | None = None,
    home: FloeHome | None = None,
    on_stage: OnStage | None = None,
    environ: Mapping[str, str] | None = None,
    orchestrator: Orchestrator | None = None,
    manifest_sha256: str | None = None,
) -> CompileResult:
    """Compile one product and write its bundle, unless nothing changed or something blocks.

    What a user wrote wrongly comes back as findings; the last good bundle stays as it is then.

    Args:
        product_dir: The folder with `floe.yaml` and `dbt_project.yml`.
        manifest: Platform manifest to use in place of the one that `floe.yaml` names.
        home: The writable folder; `FloeHome.locate(product_dir)` when left out.
        on_stage: Called with the name of each stage as it begins.
        environ: Read for `FLOE_MANIFEST` and `FLOE_MANIFEST_SHA256`, and for dbt; the process' environment when left out.
        orchestrator: Is asked whether it can serve what was compiled; nobody is when None. Commands and compile assets
            call this through `floe_dagster.definitions.compiling`, which asks Dagster.
        manifest_sha256: Digests of the manifests that may count, besides those that `FLOE_MANIFEST_SHA256` names.

    Raises:
        OSError: `home` cannot be written, or the disk is full; nothing half-written is left.
        TimeoutError: Another compilation of the product holds the lock for too long.
    """
    product_dir = Path(os.path.abspath(product_dir))
    environ = os.environ if environ is None else environ
    home = home or FloeHome.locate(product_dir, environ)
    missing = missing_product(product_dir)
    if missing:
        return _without_product(product_dir, missing)
    state = source_state(product_dir, manifest=manifest, home=home, environ=environ)
    choice = ManifestChoice.of(product_dir, manifest, environ, manifest_sha256)
    unchanged = _finished(product_dir, state, home, choice)
    if unchanged is not None:
        return unchanged
    with _lock(home, product_dir):
        state = source_state(product_dir, manifest=manifest, home=home, environ=environ)
        unchanged = _finished(product_dir, state, home, choice)
        if unchanged is not None:
            return unchanged
        from floe_dagster.compilation.audited import record_compilation
        from floe_dagster.compilation.stages import Stages

        home.path.mkdir(parents=True, exist_ok=True)
        staging_parent = home.path / "compile"
        staging_parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix="stage-", dir=staging_parent))
        try:
            stages = Stages(
                product_dir, manifest, home, environ, on_stage or _silent, orchestrator, manifest_sha256
            )
            result = stages.run(staging)
            was_there = home.bundle_path(result.slug, state.digest).exists()
            stages.generate(staging)
            previous = (_last(home, product_dir) or {}).get("digest")
            record_compilation(result, home, previous, was_there=was_there)
            if not result.blocked:
                result.stages = stages.timings
                _remember(home, product_dir, result, stages.last_day)
                _clean_up(home, result.slug, keep=version_of(result.digest))
            return result
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def validate_product(
    product_dir: Path,
    *,
    manifest: Path | None = None,
    documents_only: bool = False,
    on_stage: OnStage | None = None,
    environ: Mapping[str, str] | None = None,
    orchestrator: Orchestrator | None = None,
    manifest_sha256: str | None = None,
) -> CompileResult:
    """Find everything that `compile_product` would find, and write nothing.

    Args:
        product_dir: The folder with `floe.yaml` and `dbt_project.yml`.
        manifest: Platform manifest to use in place of the one that `floe.yaml` names.
        documents_only: Look at the YAML documents alone; dbt is neither imported nor started.
        on_stage: Called with the name of each stage as it begins.
        environ: Read for `FLOE_MANIFEST` and `FLOE_MANIFEST_SHA256`, and for dbt; the process' environment when left out.
        orchestrator: Is asked whether it can serve what was compiled; nobody is when None. Commands and compile assets
            call this through `floe_dagster.definitions.compiling`, which asks Dagster.
        manifest_sha256: Digests of the manifests that may count, besides those that `FLOE_MANIFEST_SHA256` names.
    """
    from floe_dagster.compilation.stages import Stages

    product_dir = Path(os.path.abspath(product_dir))
    missing = missing_product(product_dir)
    if missing:
        return _without_product(product_dir, missing)
    with tempfile.TemporaryDirectory(prefix="floe-validate-") as folder:
        home = FloeHome(Path(folder) / "home")
        environ = os.environ if environ is None else environ
        stages = Stages(
            product_dir, manifest, home, environ, on_stage or _silent, orchestrator, manifest_sha256
        )
        staging = Path(folder) / "stage"
        staging.mkdir()
        result = stages.run(staging, documents_only=documents_only)
        if orchestrator is not None:
            stages.generate(staging, keep=False)
        return result


def _silent(_stage: str) -> None:
    return


def _without_product(product_dir: Path, finding: Finding) -> CompileResult:
    return CompileResult(product_dir, product_dir.name, product_dir.name, "", findings=[finding])


@contextmanager
def _lock(home: FloeHome, product_dir: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    home.locks_dir.mkdir(parents=True, exist_ok=True)
    key = name_for(str(product_dir), 16)
    lock = FileLock(home.locks_dir / f"compile-{product_dir.name}-{key}.lock")
    try:
        with lock.acquire(timeout=LOCK_TIMEOUT_SECONDS):
            yield
    except Timeout as error:
        raise TimeoutError(
            f"another compilation of {product_dir.name} holds {lock.lock_file} for over "
            f"{LOCK_TIMEOUT_SECONDS:g} seconds; wait for it or end it"
        ) from error


def _finished(
    product_dir: Path, state: SourceState, home: FloeHome, choice: ManifestChoice
) -> CompileResult | None:
    """Return the last good compilation where it is one of these very sources, and the platform still allows it."""
    if choice.refuses([file.sha256 for file in state.manifests]):
        return None
    record = _last(home, product_dir)
    if record is None or record.get("digest") != state.digest:
        return None
    if _is_over(record.get("last_day")):
        # A model is deprecated by now, or what was exempt is not so any more, though no file has changed.
        return None
    slug, name = str(record.get("slug")), str(record.get("name"))
    path = home.bundle_path(slug, state.digest)
    try:
        bundle = Bundle.open(path)
    except BundleError:
        return None
    if bundle.digest != state.digest:
        return None
    result = CompileResult(product_dir, slug, name, state.digest, unchanged=True, bundle_path=path)
    result.findings = [Finding(**finding) for finding in record.get("findings", ())]
    return result


def _last(home: FloeHome, product_dir: Path) -> dict[str, Any] | None:
    """Return what is noted of the last good compilation; None where there was none."""
    try:
        record = json.loads(_record(home, product_dir).read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _is_over(day: Any) -> bool:
    from floe_dagster.compilation.exemptions import today

    return isinstance(day, str) and today().isoformat() > day


def _record(home: FloeHome, product_dir: Path) -> Path:
    return home.cache_dir / "compiled" / f"{name_for(str(product_dir))}.json"


def _remember(home: FloeHome, product_dir: Path, result: CompileResult, last_day: date | None) -> None:
    from floe_dagster.atomic import write_atomically

    record = {
        "digest": result.digest,
        "slug": result.slug,
        "name": result.name,
        "findings": [finding.to_dict() for finding in result.findings],
        "last_day": last_day.isoformat() if last_day is not None else None,
    }
    write_atomically(_record(home, product_dir), json.dumps(record).encode())


def _clean_up(home: FloeHome, slug: str, keep: str) -> None:
    for folder in (home.state_dir(slug), home.project_dir(slug)):
        try:
            entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
            entries.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
        except OSError:
            continue
        a_day_ago = time.time() - 86_400
        for entry in entries[KEPT_BUNDLES:]:
            if entry.stem == keep or entry.stat().st_mtime > a_day_ago:
                continue
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
