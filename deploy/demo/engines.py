"""The container engine of this machine: docker, podman or buildah, whichever is there and answers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class DemoError(Exception):
    """Something that the demo needs is missing or fails; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A command that builds images.

    Args:
        name: `docker`, `podman` or `buildah`.
        probe: Arguments of a command that only succeeds where the engine behind it works.
        build: Arguments that begin a build.
    """

    name: str
    probe: tuple[str, ...]
    build: tuple[str, ...]

    def problem(self) -> str | None:
        """Return why the engine cannot be used here; None where it can."""
        if not shutil.which(self.name):
            return "is not installed"
        try:
            done = subprocess.run(
                [self.name, *self.probe], capture_output=True, text=True, timeout=PROBE_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"is installed and does not answer: {error}"
        if done.returncode == 0:
            return None
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        return f"is installed, and its engine does not answer: {said[-1]}"

    def build_command(
        self,
        *,
        dockerfile: Path,
        context: Path,
        tag: str,
        arguments: Mapping[str, str],
        secrets: Mapping[str, Path],
        options: Sequence[str] = (),
    ) -> list[str]:
        """Return the command that builds an image.

        Args:
            dockerfile: The Dockerfile.
            context: Folder that it may copy from.
            tag: Name and tag of the image.
            arguments: Build arguments.
            secrets: Files by id; they are mounted while one instruction runs and stay out of the image.
            options: Further options of the engine's own.
        """
        command = [self.name, *self.build, "--file", str(dockerfile), "--tag", tag]
        for name, value in arguments.items():
            command += ["--build-arg", f"{name}={value}"]
        for name, file in secrets.items():
            command += ["--secret", f"id={name},src={file}"]
        return [*command, *options, str(context)]

    def environment(self) -> dict[str, str]:
        """Return the environment for a build."""
        # Docker's older builder knows no mounts.
        return {**os.environ, "DOCKER_BUILDKIT": "1"}

    def archive_command(self, image: str, archive: Path) -> list[str]:
        """Return the command that writes an image to `archive`, in the form that `docker load` reads."""
        if self.name == "buildah":
            return ["buildah", "push", image, f"docker-archive:{archive}:{image}"]
        return [self.name, "save", "--output", str(archive), image]


PROBE_SECONDS = 20
ENGINES = (
    Engine("docker", ("version", "--format", "{{.Server.Version}}"), ("build",)),
    Engine("podman", ("info", "--format", "{{.Store.GraphDriverName}}"), ("build", "--layers", "--force-rm")),
    Engine("buildah", ("info",), ("build", "--layers", "--force-rm")),
)
INSTALL = (
    "Start Docker (or Podman), or install one of them: https://docs.docker.com/engine/install, apt-get install podman, "
    "apt-get install buildah."
)


def find_engine(wanted: str | None = None) -> Engine:
    """Return the first engine that works.

    Args:
        wanted: Name of the only one that may be used.

    Raises:
        DemoError: There is none; the message says what is wrong with each.
    """
    known = [engine for engine in ENGINES if wanted in (None, engine.name)]
    if not known:
        raise DemoError(
            f"{wanted!r} is no container engine that is known here; use docker, podman or buildah"
        )
    problems = []
    for engine in known:
        problem = engine.problem()
        if problem is None:
            return engine
        problems.append(f"{engine.name} {problem}")
    raise DemoError("no container engine works here.\n  " + "\n  ".join(problems) + f"\n{INSTALL}")
