"""The image for Dagster+: that of the demo, and what a code location there needs beside it.

python -m deploy.dagster_plus --tag NAME:TAG      with docker, podman or buildah, after `make build-demo-image`
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.demo.engines import DemoError, Engine, find_engine
from deploy.demo.image import ROOT, default_tag, pip_secrets

DOCKERFILE = Path("docker/dagster-plus/Dockerfile")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the image; 0 fine, 1 where something is missing or fails."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.dagster_plus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tag", required=True, help="name and tag of the image")
    parser.add_argument("--base-image", default=default_tag(), help="that of the demo (%(default)s)")
    parser.add_argument("--engine", help="docker, podman or buildah; default: the first that works")
    options = parser.parse_args(arguments)
    try:
        build_plus_image(find_engine(options.engine), options.tag, options.base_image)
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def build_plus_image(
    engine: Engine, tag: str, base_image: str, *, root: Path = ROOT, options: Sequence[str] = ()
) -> None:
    """Build the image.

    Args:
        engine: Builds it.
        tag: Name and tag.
        base_image: That of the demo.
        root: The repository's root.
        options: Further options of the engine's own.

    Raises:
        DemoError: The build fails; its output is on the terminal.
    """
    with pip_secrets(os.environ) as secrets:
        command = engine.build_command(
            dockerfile=root / DOCKERFILE,
            context=root,
            tag=tag,
            arguments={"BASE_IMAGE": base_image},
            secrets=secrets,
            options=options,
        )
        if subprocess.run(command, cwd=root, env=engine.environment()).returncode:
            raise DemoError(f"{engine.name} did not build {tag}; the reason stands above")


if __name__ == "__main__":
    raise SystemExit(main())
