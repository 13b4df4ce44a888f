"""Starts and stops a real Trino beside MinIO and the REST catalog, for development and tests.

    python -m deploy.services.trino up   [--folder .floe/trino] [--workers 1] [--fault-tolerant] [--password] [--jwt]
    python -m deploy.services.trino down [--folder .floe/trino]
    python -m deploy.services.trino java

Coordinator and workers bind the loopback address, on free ports. `up` starts MinIO and the catalog, too, where they do
not run (control.py), and writes `trino.json` (where Trino listens) and `environment` (its secrets, as NAME=value,
readable by the owner alone). Catalogs: `floe` is the REST catalog, `tpch` and `tpcds` make their rows themselves,
`memory` forgets them. The server is fetched once, into `--tools` (`.floe/tools`). `java` says which
Java it would run on, or what to install.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from deploy.services import control, programs
from deploy.services.environment import read_environment
from deploy.services.trino.cluster import Cluster, write_manifest
from deploy.services.trino.server import build, find_java
from deploy.services.trino.settings import Options


def main() -> int:
    """Run one command; 0 fine, 1 where a service cannot be had."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("up", "down", "build", "java"))
    parser.add_argument(
        "--folder", type=Path, default=control.ROOT / ".floe" / "trino", help="logs, settings"
    )
    parser.add_argument(
        "--services", type=Path, default=control.ROOT / ".floe" / "services", help="MinIO and the catalog"
    )
    parser.add_argument(
        "--tools", type=Path, default=control.ROOT / ".floe" / "tools", help="what is fetched once"
    )
    parser.add_argument("--workers", type=int, default=1, help="beside the coordinator, which works, too")
    parser.add_argument("--heap", default="1G", help="of each node")
    parser.add_argument("--fault-tolerant", action="store_true", help="tasks that fail are tried again")
    parser.add_argument("--password", action="store_true", help="password over TLS")
    parser.add_argument("--jwt", action="store_true", help="tokens over TLS, too; with --password")
    options = parser.parse_args()
    if options.jwt and not options.password:
        parser.error("--jwt needs --password: tokens are shown over TLS alone")
    folder, services, tools = (path.resolve() for path in (options.folder, options.services, options.tools))
    try:
        if options.command == "down":
            Cluster(folder, tools, services).stop()
            return 0
        if options.command == "java":
            print(f"Trino runs on the Java in {find_java()}")
            return 0
        build(tools)
        if options.command == "up":
            _start_services(services, tools)
            wanted = Options(
                workers=options.workers,
                heap=options.heap,
                fault_tolerant=options.fault_tolerant,
                password=options.password,
                jwt=options.jwt,
            )
            cluster = Cluster(folder, tools, services, wanted)
            cluster.start()
            print(f"Trino at {cluster.url}, catalog floe; the secrets are in {folder / 'environment'}")
            if not options.password:
                manifest = folder / "manifest.yaml"
                write_manifest(cluster, services / "manifest.yaml", manifest)
                print(f"for a product: --manifest {manifest}, with the secrets of {services / 'environment'}")
    except programs.ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _start_services(folder: Path, tools: Path) -> None:
    """Start MinIO and the catalog, and make the bucket and its user."""
    from floe_dagster.cli import main as floe

    control.build(tools)
    control.start(folder, tools)
    os.environ |= read_environment(folder)
    if code := floe(["platform", "bootstrap", "--manifest", str(folder / "manifest.yaml")]):
        raise programs.ServiceError(f"`floe-dagster platform bootstrap` ended with {code}")


if __name__ == "__main__":
    raise SystemExit(main())
