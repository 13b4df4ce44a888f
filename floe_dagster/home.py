"""Where things lie: the project's root and the writable folder of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from floe_dagster.digests import version_of
from floe_dagster.named_manifests import SPEC_FILE, manifest_chain, named_manifest

ROOT_MARKERS = ("pyproject.toml", "workspace.yaml", ".git")
PRODUCTS_FOLDER, MANIFESTS_FOLDER = "products", "manifests"


def find_project_root(start: Path) -> Path:
    """Return the root of the project that a product or a manifest belongs to, wherever a command was started.

    It is the nearest folder upward that holds `pyproject.toml`, `workspace.yaml` or `.git`. Where none does, it is

    - of a product, the nearest folder that holds it and the manifests that it names, or the one above `products` where the
      product lies in a folder of that name and this is further up; of a product that names no manifest, the folder above
      it;
    - of a manifest, that of a product which names it and lies beside it, in a folder beside it or below `products` there;
      else the nearest folder that holds it and its parents, without `manifests`.

    Args:
        start: A product's folder, or a manifest.

    Returns:
        The root, absolute.
    """
    start = Path(os.path.abspath(start))
    return _marked_root(start) or _unmarked_root(start)


def without_marker(root: Path) -> str:
    """Return what to do where a project has no marker and its root is taken wrongly; nothing where it has one.

    Args:
        root: See `find_project_root`.
    """
    if _marked_root(root) == root:
        return ""
    return (
        f" Nothing marks the root of the project, so {root} is taken: where it is another folder, write a workspace.yaml"
        " (`load_from: []`) there."
    )


def _marked_root(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        if any((folder / marker).exists() for marker in ROOT_MARKERS):
            return folder
    return None


def _unmarked_root(start: Path) -> Path:
    if start.is_file():
        return _root_of_manifest(start)
    above = start.parent.parent if start.parent.name == PRODUCTS_FOLDER else None
    # Of several candidates, each of which holds the product, the shortest path is the folder furthest up.
    folders = [each for each in (above, _folder_with(start, _named_manifests(start))) if each is not None]
    return min(folders, key=lambda folder: len(folder.parts)) if folders else start.parent


def _root_of_manifest(path: Path) -> Path:
    for near in (path.parent, path.parent.parent):
        for pattern in (SPEC_FILE, f"*/{SPEC_FILE}", f"{PRODUCTS_FOLDER}/*/{SPEC_FILE}"):
            for spec in sorted(near.glob(pattern)):
                if str(path) in (named for _name, named in _named_manifests(spec.parent)):
                    return _unmarked_root(spec.parent)
    found = _folder_with(path.parent, manifest_chain(path.parent, path.name)) or path.parent
    return found.parent if found.name == MANIFESTS_FOLDER else found


def _folder_with(folder: Path, manifests: Iterable[tuple[str, str]]) -> Path | None:
    """Return the nearest folder that holds a folder and manifests; None where there are none.

    A path that is absolute, or that leads to the root of the file system, is a mistake, and decides nothing. Nor does one
    that leads further up than beside the folder, where no file is there: it may have one `..` too many.

    Args:
        folder: Of the product, or of the first manifest.
        manifests: What a document names, and its path.
    """
    found = None
    for name, path in manifests:
        if os.path.isabs(name):
            break
        common = Path(os.path.commonpath([found or folder, os.path.dirname(path)]))
        is_near = common in (folder, folder.parent)
        if not is_near and (common == Path(common.anchor) or not os.path.isfile(path)):
            break
        found = common
    return found


def _named_manifests(product_dir: Path) -> Iterator[tuple[str, str]]:
    named = named_manifest(product_dir)
    return manifest_chain(product_dir, named) if named else iter(())


def display_path(path: Path, root: Path) -> str:
    """Return `path` as a person wants to read it: relative to `root` where it lies inside, with `/`."""
    absolute = Path(os.path.abspath(path))
    try:
        return absolute.relative_to(root).as_posix()
    except ValueError:
        return absolute.as_posix()


@dataclass(frozen=True, slots=True)
class FloeHome:
    """The layout of `FLOE_HOME`, the one folder that is written at run time.

    Nothing is created here; whoever writes makes the folder.

    Args:
        path: Absolute path of the folder.
    """

    path: Path

    @classmethod
    def locate(cls, start: Path, environ: Mapping[str, str] | None = None) -> FloeHome:
        """Return `$FLOE_HOME`, or `.floe` under the project root of `start`: a product's folder, or a manifest."""
        configured = (os.environ if environ is None else environ).get("FLOE_HOME", "").strip()
        if configured:
            return cls(Path(os.path.abspath(os.path.expanduser(configured))))
        return cls(find_project_root(start) / ".floe")

    @property
    def duckdb_dir(self) -> Path:
        return self.path / "duckdb"

    @property
    def warehouse_dir(self) -> Path:
        return self.path / "warehouse"

    @property
    def catalog_db(self) -> Path:
        return self.path / "catalog.db"

    @property
    def cache_dir(self) -> Path:
        return self.path / "cache"

    @property
    def locks_dir(self) -> Path:
        return self.path / "locks"

    def profiles_dir(self, slug: str, engine: str | None = None) -> Path:
        """Folder of the generated `profiles.yml` of one product; of a further engine where one is named."""
        return self.path / "profiles" / (f"{slug}-{engine}" if engine else slug)

    def state_dir(self, slug: str) -> Path:
        """Folder of the bundles of one product, `<digest>.zip` each."""
        return self.path / "state" / slug

    def bundle_path(self, slug: str, digest: str) -> Path:
        """Place of the bundle of one product that was compiled from the sources with this digest."""
        return self.state_dir(slug) / f"{version_of(digest)}.zip"

    def project_dir(self, slug: str) -> Path:
        """Folder under which the bundles of one product are unpacked, one folder per digest."""
        return self.path / "projects" / slug

    def dbt_target_dir(self, slug: str, engine: str | None = None) -> Path:
        """Folder of dbt's `target` of one product; of a further engine where one is named."""
        return self.path / "dbt" / slug / (f"target-{engine}" if engine else "target")

    def logs_dir(self, slug: str) -> Path:
        """Folder of dbt's logs of one product."""
        return self.path / "dbt" / slug / "logs"

    @property
    def audit_log(self) -> Path:
        """File that `audit_logging: enabled` appends to."""
        return self.path / "audit" / "audit.jsonl"

    def outbox_dir(self, slug: str, kind: str) -> Path:
        """Folder of what waits for a receiver: `lineage`, `traces` or `metrics` of one product."""
        return self.path / "outbox" / slug / kind
