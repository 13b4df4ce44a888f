"""The three products on a real Trino of three nodes, one of which is killed on the way; every table is read back.

    python -m deploy.services.demo_trino

Trino tries again what the lost node was doing (`retry-policy=TASK`). PyIceberg reads what was published, and Trino has to
count the same rows.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import Any

from deploy.services import control, demo, programs
from deploy.services.trino.cluster import Cluster, write_manifest
from deploy.services.trino.server import build
from deploy.services.trino.settings import Options

TRINO = control.ROOT / ".floe" / "trino-demo"
MANIFEST = TRINO / "manifest.yaml"
WORKERS = 2
VICTIM = "worker-1"


def main() -> int:
    """Run the demo; 0 where the run ended well without the killed node, and all rows are there."""
    tools = control.ROOT / ".floe" / "tools"
    cluster = Cluster(TRINO, tools, demo.FOLDER, Options(workers=WORKERS, fault_tolerant=True))
    try:
        build(tools)
        if code := demo.prepare(TRINO / "home"):
            return code
        print(f"starting Trino with {WORKERS} workers")
        cluster.start()
        write_manifest(cluster, demo.MANIFEST, MANIFEST)
        print(f"Trino at {cluster.url}, manifest: {MANIFEST}")
        return _run(cluster) or _read_back(cluster)
    except programs.ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        cluster.stop()


def _run(cluster: Any) -> int:
    """Run all products, and kill a node as soon as models are being built."""
    run = subprocess.Popen(demo.run_command(MANIFEST))
    try:
        while run.poll() is None and not _is_building(cluster):
            time.sleep(0.2)
        if run.poll() is None:
            cluster.stop_node(VICTIM, signal.SIGKILL)
            others = [name for name in cluster.names if name != VICTIM]
            print(f"\n*** killed {VICTIM} with SIGKILL; {' and '.join(others)} go on ***\n", flush=True)
        code = run.wait()
    finally:
        if run.poll() is None:
            run.terminate()
            run.wait()
    if code == 0 and cluster.is_running(VICTIM):
        print(f"error: the run ended before {VICTIM} could be killed", file=sys.stderr)
        return 1
    return code


def _is_building(cluster: Any) -> bool:
    queries = cluster.call("/v1/query")
    return any(
        query.get("state") == "RUNNING" and "create or replace table" in str(query.get("query")).lower()
        for query in queries
    )


def _read_back(cluster: Any) -> int:
    catalog = demo.open_tables(MANIFEST)

    def compare(slug: str, table: str) -> tuple[int, bool]:
        rows = catalog.load_table((slug, table)).scan().to_arrow().num_rows
        counted = cluster.query(f'select count(*) from floe."{slug}"."{table}"').rows[0][0]
        return rows, rows == counted

    print(f"\n{'table':42} {'rows':>7}  PyIceberg = Trino")
    return demo.tell_tables(catalog, compare) or _tell_clones(catalog)


def _tell_clones(catalog: Any) -> int:
    """Print what the run left in the audit schemas; 0 where it left no clone."""
    from floe_dagster.iceberg.clones import is_clone
    from floe_dagster.schemas.compute.engine import audit_schema

    schemas = [audit_schema(product.parent.name) for product in control.ROOT.glob("products/*/floe.yaml")]
    tables = [catalog.load_table(name) for schema in schemas for name in catalog.list_tables(schema)]
    clones = sorted(".".join(table.name()) for table in tables if is_clone(table))
    if clones:
        print(f"left behind: {', '.join(clones)}")
    return 1 if clones else 0


if __name__ == "__main__":
    raise SystemExit(main())
