"""Every file that decides the outcome of a compilation, and one digest over them.

The digest is what identifies a product's state everywhere: the bundle's name, the version in Dagster's
state storage, the data version of the compile assets. It covers content and names relative to the
product's folder, so it is the same wherever a checkout lies.

A stat cache (as git's index) makes an unchanged look cheap: directories and files are compared by
their stat, nothing is read and no YAML is parsed.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from floe_dagster.compilation.packages import install_path, installed_packages
from floe_dagster.digests import digest_of, digits_of_file, name_for
from floe_dagster.home import FloeHome
from floe_dagster.named_manifests import SPEC_FILE, lenient_yaml, manifest_chain, named_manifest

PROJECT_FILE = "dbt_project.yml"
PROJECT_LEVEL_FILES = (
    SPEC_FILE,
    PROJECT_FILE,
    "packages.yml",
    "package-lock.yml",
    "dependencies.yml",
    "selectors.yml",
)
DBT_PATHS: Mapping[str, tuple[str, ...]] = {
    "model-paths": ("models",),
    "seed-paths": ("seeds",),
    "test-paths": ("tests",),
    "analysis-paths": ("analyses",),
    "macro-paths": ("macros",),
    "snapshot-paths": ("snapshots",),
    "function-paths": ("functions",),
    "docs-paths": (),
}
DBT_SUFFIXES = frozenset({".sql", ".yml", ".yaml", ".csv", ".md", ".py", ".json", ".jinja", ".j2"})
SKIPPED_FOLDERS = frozenset({"target", "logs", "dbt_packages", "__pycache__", "node_modules", "venv"})
_CACHE_FORMAT = 5
_RACY_NS = 2_000_000_000
"""A file changed this shortly before the cache was written may change again within the same mtime."""

_Row = tuple[str, str, bool, int, int, int, str]
"""name, path, is a manifest, size, mtime in ns, inode, sha256"""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a product.

    Args:
        name: Path relative to the product's folder, `/` separated; shared folders begin with `../`.
        path: Absolute path on this machine.
        sha256: Hex digest of the content; the empty string for a file that cannot be read.
    """

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class SourceState:
    """What a product's folder and its manifest chain hold at this moment.

    Args:
        digest: `sha256:` and 64 hex digits over everything that decides the outcome.
        files: The dbt project and the product spec.
        manifests: The manifest chain, nearest layer first.
    """

    digest: str
    files: tuple[SourceFile, ...]
    manifests: tuple[SourceFile, ...]


@dataclass(slots=True)
class _Index:
    salt: list[str]
    digest: str
    written_ns: int
    directories: dict[str, int]
    files: list[_Row]


_memory: dict[str, _Index] = {}


def source_state(
    product_dir: Path,
    *,
    manifest: Path | None = None,
    home: FloeHome | None = None,
    environ: Mapping[str, str] | None = None,
) -> SourceState:
    """Return the files of a product and their digest, reading only what changed since the last look.

    It never raises for what stands in the files: a document that cannot be read or parsed still has a
    digest, so that a sensor sees the change and the compilation can report it.

    Args:
        product_dir: The folder with `floe.yaml` and `dbt_project.yml`.
        manifest: Platform manifest to use in place of the one that `floe.yaml` names.
        home: Where the stat cache lies; `FloeHome.locate(product_dir)` when left out.
        environ: Read for `FLOE_MANIFEST`; the process' environment when left out.
    """
    product_dir = Path(os.path.abspath(product_dir))
    environ = os.environ if environ is None else environ
    override = str(manifest) if manifest is not None else environ.get("FLOE_MANIFEST", "").strip()
    override = os.path.abspath(override) if override else ""
    home = home or FloeHome.locate(product_dir, environ)
    key = name_for(f"{product_dir}\0{override}")
    cache_file = home.cache_dir / "sources" / f"{key}.json"
    salt = _salt()

    known = _memory.get(str(cache_file)) or _load_index(cache_file)
    if known is not None and known.salt == salt and _unchanged(known):
        _memory[str(cache_file)] = known
        return _state_of(known)
    index = _scan(product_dir, override, salt, known)
    _memory[str(cache_file)] = index
    _store_index(cache_file, index)
    return _state_of(index)


_versions: list[str] = []


def _salt() -> list[str]:
    if not _versions:
        # Who only looks for a product's slug needs no models.
        from floe_dagster.schemas.compute import ENGINES
        from floe_dagster.schemas.kinds import extension_versions

        for name in ("floe-dagster", "dbt-core", *(engine.adapter for engine in ENGINES.values())):
            try:
                _versions.append(f"{name}={metadata.version(name)}")
            except metadata.PackageNotFoundError:
                _versions.append(f"{name}=")
        _versions.extend(extension_versions())
        _versions.append(f"format={_CACHE_FORMAT}")
    return _versions


def _unchanged(index: _Index) -> bool:
    try:
        for folder, mtime_ns in index.directories.items():
            try:
                if os.stat(folder).st_mtime_ns != mtime_ns:
                    return False
            except FileNotFoundError:
                if mtime_ns != -1:
                    return False
        racy_from = index.written_ns - _RACY_NS
        for _name, path, _is_manifest, size, mtime_ns, inode, _sha in index.files:
            try:
                found = os.stat(path)
            except FileNotFoundError:
                if mtime_ns != -1:
                    return False
                continue
            if found.st_mtime_ns != mtime_ns or found.st_size != size or found.st_ino != inode:
                return False
            if mtime_ns >= racy_from:
                return False
    except OSError:
        return False
    return True


def _state_of(index: _Index) -> SourceState:
    rows = [(SourceFile(row[0], Path(row[1]), row[6]), row[2]) for row in index.files]
    return SourceState(
        digest=index.digest,
        files=tuple(file for file, is_manifest in rows if not is_manifest),
        manifests=tuple(file for file, is_manifest in rows if is_manifest),
    )


def _scan(product_dir: Path, override: str, salt: list[str], known: _Index | None) -> _Index:
    started_ns = time.time_ns()
    hashes: dict[tuple[str, int, int, int], str] = {}
    if known is not None:
        racy_from = known.written_ns - _RACY_NS
        hashes = {(row[1], row[3], row[4], row[5]): row[6] for row in known.files if row[4] < racy_from}
    directories: dict[str, int] = {}
    rows: list[_Row] = []
    for name, path in _project_files(product_dir, directories):
        rows.append(_row(name, path, False, hashes))
    for position, path in enumerate(_manifest_chain(product_dir, override)):
        rows.append(_row(f"manifest:{position}", path, True, hashes))

    decisive = [f"{part}\0" for part in salt]
    for name, _path, _is_manifest, _size, _mtime, _inode, sha in sorted(rows, key=lambda row: row[0]):
        decisive.append(f"{name}\0{sha}\0")
    digest = digest_of("".join(decisive).encode("utf-8", "surrogateescape"))
    return _Index(salt, digest, started_ns, directories, rows)


def _row(name: str, path: str, is_manifest: bool, hashes: Mapping[tuple[str, int, int, int], str]) -> _Row:
    try:
        found = os.stat(path)
        sha = hashes.get((path, found.st_size, found.st_mtime_ns, found.st_ino))
        if sha is None:
            sha = digits_of_file(path) if stat.S_ISREG(found.st_mode) else ""
        return (name, path, is_manifest, found.st_size, found.st_mtime_ns, found.st_ino, sha)
    except OSError:
        return (name, path, is_manifest, -1, -1, -1, "")


def _project_files(product_dir: Path, directories: dict[str, int]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    _remember(directories, str(product_dir))
    for name in PROJECT_LEVEL_FILES:
        path = os.path.join(product_dir, name)
        if name in (SPEC_FILE, PROJECT_FILE) or os.path.lexists(path):
            seen.add(path)
            yield name, path
    roots = dbt_source_folders(product_dir)
    _remember(directories, str(product_dir / install_path(product_dir)))
    for package in installed_packages(product_dir):
        _remember(directories, str(package))
        yield (
            os.path.relpath(package / PROJECT_FILE, product_dir).replace(os.sep, "/"),
            str(package / PROJECT_FILE),
        )
        roots += dbt_source_folders(package)
    for root in roots:
        for path in _walk(root, directories):
            if path not in seen:
                seen.add(path)
                yield os.path.relpath(path, product_dir).replace(os.sep, "/"), path


def _walk(root: str, directories: dict[str, int]) -> Iterator[str]:
    pending = [root]
    visited: set[tuple[int, int]] = set()
    while pending:
        folder = pending.pop()
        _remember(directories, folder)
        try:
            found = os.stat(folder)
            if (found.st_dev, found.st_ino) in visited:
                continue
            visited.add((found.st_dev, found.st_ino))
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:
                is_folder = False
            if is_folder:
                if entry.name not in SKIPPED_FOLDERS:
                    pending.append(entry.path)
            elif os.path.splitext(entry.name)[1].lower() in DBT_SUFFIXES:
                yield entry.path


def _remember(directories: dict[str, int], folder: str) -> None:
    try:
        directories[folder] = os.stat(folder).st_mtime_ns
    except OSError:
        directories[folder] = -1


def dbt_source_folders(product_dir: Path) -> list[str]:
    """Return the folders that dbt reads for this project, absolute, as `dbt_project.yml` names them.

    Local packages (`local:` in `packages.yml`) are part of it.
    """
    project = lenient_yaml(product_dir / PROJECT_FILE)
    folders: list[str] = []
    for key, default in DBT_PATHS.items():
        named = project.get(key, project.get(key.replace("-", "_")))
        names: Iterable[Any] = named if isinstance(named, list) else default
        folders += [str(name) for name in names if isinstance(name, str) and "{{" not in name]
    for file in ("packages.yml", "dependencies.yml"):
        packages = lenient_yaml(product_dir / file).get("packages")
        for package in packages if isinstance(packages, list) else ():
            if isinstance(package, dict) and isinstance(package.get("local"), str):
                folders.append(package["local"])
    absolute = [os.path.normpath(os.path.join(product_dir, folder)) for folder in folders]
    return list(dict.fromkeys(absolute))


def _manifest_chain(product_dir: Path, override: str) -> list[str]:
    named = override or named_manifest(product_dir)
    return [path for _named, path in manifest_chain(product_dir, named)] if named else []


def _load_index(path: Path) -> _Index | None:
    try:
        raw = json.loads(path.read_bytes())
        return _Index(
            raw["salt"],
            raw["digest"],
            raw["written_ns"],
            raw["directories"],
            [tuple(row) for row in raw["files"]],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _store_index(path: Path, index: _Index) -> None:
    from floe_dagster.atomic import write_atomically

    payload = {
        "salt": index.salt,
        "digest": index.digest,
        "written_ns": index.written_ns,
        "directories": index.directories,
        "files": index.files,
    }
    try:
        write_atomically(path, json.dumps(payload).encode())
    except OSError:
        # The cache only saves time; a read-only FLOE_HOME must not stop a look at the sources.
        return


def product_slug(product_dir: Path) -> str:
    """Return the slug that `floe.yaml` gives, or one of the folder's name where it cannot be read."""
    import re

    metadata_section = lenient_yaml(product_dir / SPEC_FILE).get("metadata")
    name = metadata_section.get("name") if isinstance(metadata_section, dict) else None
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        name = product_dir.name
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "product"
