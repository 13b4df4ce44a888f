"""A stand-in for `dagster/dagster-celery-k8s`, which cannot be pulled without a registry.

Debian with Python under /usr/local, and the packages that the published image installs, from hashes. It is made once and
kept; what it is made from is part of its name.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from tests.deploy.image.storage import Storage, as_root

RELEASE = "bookworm"
PACKAGES = "ca-certificates,python3,python3-venv"
REQUIREMENTS = Path(__file__).with_name("official.txt")


def official_image(storage: Storage) -> str:
    """Return the name of the stand-in, made where it is not there yet (minutes)."""
    key = hashlib.sha256(b"\0".join([REQUIREMENTS.read_bytes(), Path(__file__).read_bytes()])).hexdigest()[
        :12
    ]
    name = f"localhost/dagster-celery-k8s:{key}"
    if not storage.has(name):
        container = storage.run("from", "scratch").stdout.strip()
        try:
            root = Path(storage.run("mount", container).stdout.strip())
            _debian(root)
            _python(root)
            storage.run(
                *("config", "--env", "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"),
                *("--env", "LANG=C.UTF-8", "--cmd", "python3", container),
            )
            storage.run("umount", container)
            storage.run("commit", "--quiet", container, name)
        finally:
            storage.remove(container)
    return name


def _debian(root: Path) -> None:
    mirror = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
    as_root(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(root), mirror])
    for leftover in (
        "var/cache/apt",
        "var/lib/apt/lists",
        "usr/share/doc",
        "usr/share/man",
        "usr/share/locale",
    ):
        shutil.rmtree(root / leftover, ignore_errors=True)


def _python(root: Path) -> None:
    # As in Docker's own Python images: interpreter and packages under /usr/local, first on PATH.
    as_root(["chroot", str(root), "python3", "-m", "venv", "--copies", "/usr/local"])
    shutil.copy(REQUIREMENTS, root / "tmp" / "requirements.txt")
    environment = {name: value for name, value in os.environ.items() if name.startswith("PIP_INDEX")}
    environment["PATH"] = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
    certificates = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    if certificates:
        shutil.copy(certificates, root / "tmp" / "ca.pem")
        environment["PIP_CERT"] = "/tmp/ca.pem"
    if Path("/etc/resolv.conf").exists():
        shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    pip = [
        "python",
        "-m",
        "pip",
        "install",
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--no-input",
        "--quiet",
    ]
    as_root(
        [
            "chroot",
            str(root),
            *pip,
            "--no-deps",
            "--require-hashes",
            "--requirement",
            "/tmp/requirements.txt",
        ],
        env=environment,
    )
    for leftover in ("tmp/requirements.txt", "tmp/ca.pem", "etc/resolv.conf"):
        (root / leftover).unlink(missing_ok=True)
