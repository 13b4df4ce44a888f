"""Where things lie: the project's root and the writable folder of this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT_MARKERS = ("pyproject.toml", "workspace.yaml", ".git")


def find_project_root(start: Path) -> Path:
    """Return the nearest folder upward that holds `pyproject.toml`, `workspace.yaml` or `.git`.

    Args:
        start: A product's folder.

    Returns:
        The root, absolute; where no marker is found, the parent of `start`.
    """
    start = Path(os.path.abspath(start))
    for folder in (start, *start.parents):
        if any((folder / marker).exists() for marker in ROOT_MARKERS):
            return folder
    return start.parent


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
        """Return `$FLOE_HOME`, or `.floe` under the project root of `start`."""
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

    def project_dir(self, slug: str) -> Path:
        """Folder under which the bundles of one product are unpacked, one folder per digest."""
        return self.path / "projects" / slug

    def dbt_target_dir(self, slug: str, engine: str | None = None) -> Path:
        """Folder of dbt's `target` of one product; of a further engine where one is named."""
        return self.path / "dbt" / slug / (f"target-{engine}" if engine else "target")

    def logs_dir(self, slug: str) -> Path:
        """Folder of dbt's logs of one product."""
        return self.path / "dbt" / slug / "logs"

    def outbox_dir(self, slug: str, kind: str) -> Path:
        """Folder of what waits for a receiver: `lineage`, `traces` or `metrics` of one product."""
        return self.path / "outbox" / slug / kind
