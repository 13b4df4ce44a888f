"""The built image as a pod would run it: its user, a read-only root, the volumes of the chart.

No engine starts it. The root is a bind mount that the kernel holds read-only, in namespaces of its own for mounts and
processes, with no privileges and none to be had: what a container is made of.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

USER = 10001
STOP_SECONDS = 20
RUN_SECONDS = 240
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")

_ENTER = """\
set -eu
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount -t proc -o nosuid,nodev,noexec proc "$ROOT/proc"
mount -t tmpfs -o mode=755,nosuid,size=64k tmpfs "$ROOT/dev"
for device in $DEVICES; do touch "$ROOT/dev/$device"; mount --bind "/dev/$device" "$ROOT/dev/$device"; done
mkdir -m 1777 "$ROOT/dev/shm"
mount -t tmpfs -o mode=1777,nosuid,nodev,noexec,size=64m tmpfs "$ROOT/dev/shm"
mount -o remount,ro "$ROOT/dev"
while IFS=: read -r source target mode; do
  mount --bind "$source" "$ROOT$target"
  mount -o "remount,bind,$mode,nosuid,nodev" "$ROOT$target"
done < "$MOUNTS"
mount -o remount,bind,ro,nosuid,nodev "$ROOT"
cd "$ROOT"
exec setpriv --no-new-privs --inh-caps=-all chroot --userspec="$USER:$USER" --groups="$USER" "$ROOT" \
  sh -c 'cd "$1"; shift; exec "$@"' sh "$DIRECTORY" "$@"
"""


class Pod:
    """One pod of the image: its volume outlives its processes.

    Args:
        root: The image's files, mounted writable; the pod never writes them.
        config: The image's configuration.
        folder: Folder for the volume and what the chart mounts.
        manifest: Content of the platform manifest in the ConfigMap.
        environ: What the chart sets beside the image's own.
    """

    def __init__(
        self, root: Path, config: Mapping[str, Any], folder: Path, manifest: str, environ: Mapping[str, str]
    ) -> None:
        self.root = root
        self.folder = folder
        self.volume = folder / "volume"
        self.manifests = folder / "manifests"
        for name in ("home", "tmp"):
            (self.volume / name).mkdir(parents=True)
            # What `fsGroup` does to a volume.
            os.chown(self.volume / name, 0, USER)
            (self.volume / name).chmod(0o2775)
        self.manifests.mkdir()
        self.write_manifest(manifest)
        self.directory = config.get("WorkingDir") or "/"
        self.environ = {
            **dict(entry.split("=", 1) for entry in config["Env"]),
            "FLOE_MANIFEST": "/etc/floe/manifests/manifest.yaml",
            **environ,
        }
        self._mounts = folder / "mounts"
        mounts = {
            "/var/lib/floe": (self.volume / "home", "rw"),
            "/tmp": (self.volume / "tmp", "rw"),
            "/etc/floe/manifests": (self.manifests, "ro"),
        }
        # A container runtime makes what it mounts on, and names this very machine.
        (root / "etc" / "hosts").touch()
        (folder / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        for target, (source, mode) in mounts.items():
            self._mount(source, target, mode)
        self._mount(folder / "hosts", "/etc/hosts", "ro")

    @property
    def home(self) -> Path:
        """FLOE_HOME as it is seen from outside."""
        return self.volume / "home"

    def write_manifest(self, content: str) -> None:
        """Change the ConfigMap: as kubelet does it, a link to a new folder takes the place of the old one."""
        folder = self.manifests / f"..{time.time_ns()}"
        folder.mkdir()
        (folder / "manifest.yaml").write_text(content)
        staged = self.manifests / "..data_tmp"
        staged.symlink_to(folder.name)
        staged.rename(self.manifests / "..data")
        link = self.manifests / "manifest.yaml"
        if not link.is_symlink():
            link.symlink_to("..data/manifest.yaml")

    def mount_settings(self, files: Mapping[str, str], target: str) -> None:
        """Mount a folder with settings, read-only: another ConfigMap.

        Args:
            files: Content by name.
            target: Where the pod sees them.
        """
        source = self.folder / target.strip("/").replace("/", "-")
        source.mkdir()
        for name, content in files.items():
            (source / name).write_text(content)
        self._mount(source, target, "ro")

    def _mount(self, source: Path, target: str, mode: str) -> None:
        if source.is_dir():
            (self.root / target.lstrip("/")).mkdir(parents=True, exist_ok=True)
        with self._mounts.open("a") as file:
            file.write(f"{source}:{target}:{mode}\n")

    def run(
        self, *command: str, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and return how it ended."""
        return subprocess.run(
            self._command(command),
            env=self._outside(),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run Python code to its end."""
        return self.run("python", "-c", code)

    @contextmanager
    def running(self, *command: str) -> Iterator[Path]:
        """Keep a command running; yields the file with its output."""
        output = self.folder / f"{time.time_ns()}.log"
        with output.open("wb") as file:
            process = subprocess.Popen(
                self._command(command), env=self._outside(), stdout=file, stderr=subprocess.STDOUT
            )
        try:
            yield output
        finally:
            # As kubelet ends a container; its first process is the child of `unshare`, which ignores signals.
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            finally:
                process.kill()
                process.wait()

    def _command(self, command: tuple[str, ...]) -> list[str]:
        # All that a pod sees of this machine's environment is what the image and the chart set.
        inside = ["env", "-i", *(f"{name}={value}" for name, value in self.environ.items()), *command]
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts"]
        return [*unshare, "sh", "-c", _ENTER, "enter", *inside]

    def _outside(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "ROOT": str(self.root),
            "MOUNTS": str(self._mounts),
            "DEVICES": " ".join(DEVICES),
            "USER": str(USER),
            "DIRECTORY": self.directory,
        }
