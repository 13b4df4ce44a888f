"""The demo, from the sources to a cluster.

python -m deploy.demo compile                 target/ of every product, for manifests/demo.yaml
python -m deploy.demo image [-- OPTIONS]      the image, with docker, podman or buildah; OPTIONS are the engine's own
python -m deploy.demo check                   says what this machine lacks for `up`
python -m deploy.demo up                      a kind cluster with the image and the chart deploy/floe-platform
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deploy.demo import cluster
from deploy.demo.engines import DemoError, Engine, find_engine
from deploy.demo.image import build_image, compile_products, default_tag


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 fine, 1 where something is missing or fails."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # argparse would take what follows `--` for itself.
    end = given.index("--") if "--" in given else len(given)
    options = _parser().parse_args(given[:end])
    options.engine_options = given[end + 1 :]
    try:
        COMMANDS[options.command](options)
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _compile(_options: argparse.Namespace) -> None:
    compile_products()


def _image(options: argparse.Namespace) -> None:
    engine = find_engine(options.engine)
    base = {"BASE_IMAGE": options.base_image} if options.base_image else {}
    build_image(engine, options.tag, arguments=base, options=options.engine_options)
    print(f"built {options.tag} with {engine.name}")


def _check(options: argparse.Namespace) -> Engine:
    lines = cluster.missing()
    try:
        engine = find_engine(options.engine)
    except DemoError as error:
        lines.append(str(error))
    if lines:
        raise DemoError("the demo cannot run in a cluster here:\n  " + "\n  ".join(lines))
    return engine


def _up(options: argparse.Namespace) -> None:
    engine = _check(options)
    with tempfile.TemporaryDirectory(prefix="floe-demo-") as folder:
        cluster.install(engine, default_tag(), archive=Path(folder) / "image.tar")
    print(
        f"\nkubectl --context kind-{cluster.CLUSTER} -n {cluster.NAMESPACE} get pods\n"
        f"kubectl --context kind-{cluster.CLUSTER} -n {cluster.NAMESPACE} port-forward "
        f"svc/{cluster.RELEASE}-dagster-webserver 3000:8080, then open http://127.0.0.1:3000"
    )


COMMANDS = {"compile": _compile, "image": _image, "check": _check, "up": _up}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument(
        "--engine", help="the one to use: docker, podman or buildah; default: the first that works"
    )
    parser.add_argument("--tag", default=default_tag(), help="name and tag of the image (%(default)s)")
    parser.add_argument("--base-image", help="in place of dagster/dagster-celery-k8s")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
