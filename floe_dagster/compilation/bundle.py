"""One archive per product and digest: what a location serves and what its runs execute.

A bundle is a ZIP file with the compiled artifact, the asset index that the definitions are built from,
dbt's manifest, the report of the compilation, what dbt has parsed for each engine (see `parse_state`), and the dbt
sources that the digest covers. Its bytes
depend on nothing but its content.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floe_dagster.atomic import new_file
from floe_dagster.digests import is_digest, version_of
from floe_dagster.errors import FloeError
from floe_dagster.home import FloeHome

if TYPE_CHECKING:
    from floe_dagster.schemas.artifacts import CompiledArtifacts
    from floe_dagster.schemas.product_index import ProductIndex

BUNDLE_FORMAT = 1
ARTIFACT = "compiled_artifacts.json"
DBT_MANIFEST = "manifest.json"
ASSET_INDEX = "asset_index.json"
REPORT = "report.json"
HEADER = "bundle.json"
SOURCES = "sources"
BAKED_BUNDLE = "floe_state.zip"
"""Name of the bundle that the command line leaves beside the artifact, for an image to carry."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


class BundleError(FloeError):
    """A bundle cannot be read: it is cut off, foreign, or of a newer format."""


@dataclass(frozen=True, slots=True)
class UnpackedProject:
    """The sources of a bundle on disk, ready for dbt.

    Args:
        project_dir: Folder with `dbt_project.yml`; `../macros` and the like lie beside it.
        manifest_path: dbt's manifest of these sources.
    """

    project_dir: Path
    manifest_path: Path


class SourceLayout:
    """Maps names relative to the product's folder to names below the root of a bundle.

    Args:
        slug: The product's slug.
        names: All names of the bundle.
    """

    def __init__(self, slug: str, names: Iterable[str]) -> None:
        depth = max((_parents_of(name) for name in names), default=0)
        padding = [f"_{level}" for level in range(max(depth - 1, 0))]
        self.project = "/".join([*padding, slug])

    def place(self, name: str) -> str:
        """Return where `name` lies below the root."""
        return os.path.normpath(os.path.join(self.project, name)).replace(os.sep, "/")


def _parents_of(name: str) -> int:
    return sum(1 for part in name.split("/") if part == "..")


class Bundle:
    """A bundle that exists; parts are read when asked for.

    Args:
        path: The archive.

    Raises:
        BundleError: The file is not a bundle that this version can read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                header = json.loads(archive.read(HEADER))
        except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
            raise BundleError(
                f"{path} is not a readable bundle: {error}. Compile the product again."
            ) from error
        if not isinstance(header, dict) or header.get("format") != BUNDLE_FORMAT:
            raise BundleError(
                f"{path} has bundle format {header.get('format') if isinstance(header, dict) else header!r}, "
                f"this version reads {BUNDLE_FORMAT}. Compile the product again."
            )
        fields = {name: str(header.get(name, "")) for name in ("digest", "slug", "product_name", "project")}
        # They become paths: an archive from elsewhere must not choose where it is written.
        if not (
            is_digest(fields["digest"])
            and re.fullmatch(r"[a-z][a-z0-9_]*", fields["slug"])
            and _is_inside(fields["project"])
        ):
            raise BundleError(f"{path} has a header that no compilation writes. Compile the product again.")
        self.header: dict[str, Any] = header

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Return the bundle at `path`; see the class for what it raises."""
        return cls(path)

    @property
    def digest(self) -> str:
        """`sha256:…` of the sources that it was compiled from."""
        return str(self.header["digest"])

    @property
    def slug(self) -> str:
        return str(self.header["slug"])

    @property
    def product_name(self) -> str:
        return str(self.header["product_name"])

    def artifact(self) -> CompiledArtifacts:
        """Return the compiled artifact.

        Raises:
            BundleError: It is damaged, or of a version that this one cannot read.
        """
        from floe_dagster.findings import InputError
        from floe_dagster.schemas.artifacts import CompiledArtifacts

        try:
            return CompiledArtifacts.load(self.read(ARTIFACT))
        except InputError as error:
            raise BundleError(f"{self.path}: {error}") from error

    def index(self) -> ProductIndex:
        """Return the index that the definitions are built from, of this version or of an earlier one.

        Raises:
            BundleError: It is damaged, or of a version that this one cannot read.
        """
        from floe_dagster.schemas.product_index_json import index_from_json

        source = self.read(ASSET_INDEX)
        try:
            return index_from_json(source, default_engine=lambda: self.artifact().default_engine)
        except ValueError as error:
            raise BundleError(f"{self.path}: {ASSET_INDEX} {error}") from error

    def report(self) -> dict[str, Any]:
        """Return the report of the compilation: findings, policies, governance decisions, timings."""
        return self._loads(REPORT)

    def dbt_manifest(self) -> dict[str, Any]:
        """Return dbt's manifest."""
        return self._loads(DBT_MANIFEST)

    def unpack(self, home: FloeHome) -> UnpackedProject:
        """Unpack the sources under `home`, once per digest, and return where they lie.

        A crash while unpacking leaves nothing that would be used; several processes may unpack at once.

        Raises:
            BundleError: The archive is damaged.
            OSError: `home` cannot be written.
        """
        target = home.project_dir(self.slug) / version_of(self.digest)
        unpacked = UnpackedProject(target / self.header["project"], target / DBT_MANIFEST)
        if target.is_dir():
            return unpacked
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".unpack-", dir=target.parent))
        try:
            try:
                with zipfile.ZipFile(self.path) as archive:
                    for name in archive.namelist():
                        if name.startswith(f"{SOURCES}/"):
                            inner = name.removeprefix(f"{SOURCES}/")
                            if not _is_inside(inner):
                                raise BundleError(f"{self.path} names {name!r}, which lies outside of it.")
                            _extract(archive, name, staging / inner)
                    _extract(archive, DBT_MANIFEST, staging / DBT_MANIFEST)
            except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
                raise BundleError(f"{self.path} is damaged: {error}. Compile the product again.") from error
            staging.chmod(0o755)
            with contextlib.suppress(OSError):
                # Another process may have been quicker; its folder holds the same content.
                staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        if not target.is_dir():
            raise OSError(f"{target} could not be written.")
        return unpacked

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path)

    def read(self, name: str) -> bytes:
        """Return the content of one document of the bundle, for example `ARTIFACT`."""
        try:
            return self._archive.read(name)
        except (OSError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise BundleError(
                f"{self.path} has no readable {name}: {error}. Compile the product again."
            ) from error

    def holds(self, name: str) -> bool:
        """Tell whether the bundle has a document of this name."""
        try:
            return name in self._archive.namelist()
        except (OSError, zipfile.BadZipFile):
            return False

    def _loads(self, name: str) -> dict[str, Any]:
        import orjson

        try:
            loaded: dict[str, Any] = orjson.loads(self.read(name))
        except ValueError as error:
            raise BundleError(
                f"{self.path}: {name} is damaged: {error}. Compile the product again."
            ) from error
        return loaded


def _extract(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(name) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _is_inside(name: str) -> bool:
    return bool(name) and not name.startswith("/") and ".." not in name.split("/")


def write_bundle(
    path: Path,
    *,
    digest: str,
    slug: str,
    product_name: str,
    documents: dict[str, bytes],
    sources_root: Path,
    sources: Iterable[str],
    project: str,
) -> None:
    """Write a bundle atomically.

    Args:
        path: The archive; its folder is made.
        digest: `sha256:…` of the sources.
        slug: The product's slug.
        product_name: The product's name.
        documents: Content of `ARTIFACT`, `DBT_MANIFEST`, `ASSET_INDEX`, `REPORT`, and of `ParseState.documents`.
        sources_root: Folder with the staged sources.
        sources: Their paths below it.
        project: Folder with `dbt_project.yml` below it.

    Raises:
        OSError: The folder cannot be written or the disk is full; nothing is left behind.
    """
    header = {
        "format": BUNDLE_FORMAT,
        "digest": digest,
        "slug": slug,
        "product_name": product_name,
        "project": project,
    }
    with (
        new_file(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        archive.writestr(_entry(HEADER), json.dumps(header, sort_keys=True).encode())
        for name in sorted(documents):
            archive.writestr(_entry(name), documents[name])
        for name in sorted(sources):
            archive.writestr(_entry(f"{SOURCES}/{name}"), (sources_root / name).read_bytes())


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
