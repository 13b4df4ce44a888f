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

from deploy.demo.engines import DemoError, find_engine
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
        engine = find_engine(options.engine)
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with pip_secrets(os.environ) as secrets:
        command = engine.build_command(
            dockerfile=ROOT / DOCKERFILE,
            context=ROOT,
            tag=options.tag,
            arguments={"BASE_IMAGE": options.base_image},
            secrets=secrets,
        )
        code = subprocess.run(command, cwd=ROOT, env=engine.environment()).returncode
    if code:
        print(f"error: {engine.name} did not build {options.tag}; the reason stands above", file=sys.stderr)
    return 1 if code else 0


if __name__ == "__main__":
    raise SystemExit(main())
