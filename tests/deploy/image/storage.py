"""Buildah with a storage of the tests' own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "floe-dagster" / "image-tests"
"""Survives a checkout: the stand-in base is made once, the layers of the image are kept."""
NEEDED = {
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "unshare": "util-linux",
    "setpriv": "util-linux",
}


class Storage:
    """Images and containers under one folder.

    Args:
        folder: Nothing else touches what lies in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        settings = folder / "storage.conf"
        driver = os.environ.get("STORAGE_DRIVER", "overlay")
        settings.write_text(
            f'[storage]\ndriver = "{driver}"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n'
        )
        self.environment = {
            **os.environ,
            "BUILDAH_ISOLATION": "chroot",
            "CONTAINERS_STORAGE_CONF": str(settings),
            "STORAGE_DRIVER": driver,
        }

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `buildah ARGUMENTS`; a failure raises with what it said."""
        done = self.attempt(*arguments, **options)
        if done.returncode:
            raise RuntimeError(f"buildah {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
        return done

    def attempt(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `buildah ARGUMENTS` and return how it ended."""
        return subprocess.run(
            ["buildah", *arguments], env=self.environment, capture_output=True, text=True, **options
        )

    @contextmanager
    def as_environment(self) -> Iterator[None]:
        """Let every `buildah` that is started inside use this storage."""
        before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def has(self, image: str) -> bool:
        """Return whether an image is there."""
        return self.attempt("inspect", "--type", "image", image).returncode == 0

    def config(self, image: str) -> Mapping[str, Any]:
        """Return the configuration of an image, as the OCI specification has it."""
        inspected = json.loads(self.run("inspect", "--type", "image", image).stdout)
        config: dict[str, Any] = inspected["OCIv1"]["config"]
        return config

    def mounted(self, image: str) -> tuple[str, Path]:
        """Return a new container of `image` and where its files lie."""
        container = self.run("from", "--pull-never", image).stdout.strip()
        return container, Path(self.run("mount", container).stdout.strip())

    def remove(self, container: str) -> None:
        """Unmount and remove a container."""
        self.attempt("umount", container)
        self.attempt("rm", container)

    def clean_up(self, days: float = 3) -> None:
        """Remove containers that a killed session left, and cached layers that are older than `days`."""
        self.attempt("rm", "--all")
        listed = json.loads(self.attempt("images", "--all", "--json").stdout or "null")
        for image in listed or ():
            if not image["names"] and time.time() - image["created"] > days * 86_400:
                # What others build on is refused, and stays.
                self.attempt("rmi", image["id"])


def missing_tools() -> list[str]:
    """Return what has to be installed before an image can be built here."""
    return sorted({package for tool, package in NEEDED.items() if not shutil.which(tool)})


def as_root(command: Sequence[str], **options: Any) -> None:
    """Run a command; a failure raises with what it said."""
    done = subprocess.run(list(command), capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
