"""The three products on a real Trino of three nodes, one of which is killed on the way; every table is read back.

    python deploy/services/demo_trino.py

Trino tries again what the lost node was doing (`retry-policy=TASK`). PyIceberg reads what was published, and Trino has to
count the same rows.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import control
import trino

FOLDER = control.ROOT / ".floe" / "services"
TRINO = control.ROOT / ".floe" / "trino-demo"
MANIFEST = TRINO / "manifest.yaml"
WORKERS = 2
VICTIM = "worker-1"


def main() -> int:
    """Run the demo; 0 where the run ended well without the killed node, and all rows are there."""
    from floe_dagster.cli import main as floe

    tools = control.ROOT / ".floe" / "tools"
    try:
        trino.build(tools)
        control.build(tools)
        control.start(FOLDER, tools)
    except control.ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    os.environ |= control._read_environment(FOLDER)
    os.environ["FLOE_HOME"] = str(TRINO / "home")
    os.environ["DAGSTER_HOME"] = str(TRINO / "home" / "dagster")
    os.chdir(control.ROOT)
    if code := floe(["platform", "bootstrap", "--manifest", str(FOLDER / "manifest.yaml")]):
        return int(code)
    for name in ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"):
        os.environ.pop(name, None)
    cluster = trino.Cluster(TRINO, tools, FOLDER, trino.Options(workers=WORKERS, fault_tolerant=True))
    try:
        print(f"starting Trino with {WORKERS} workers")
        cluster.start()
        _write_manifest(cluster)
        return _run(cluster) or _read_back(cluster)
    except control.ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        cluster.stop()


def _write_manifest(cluster: Any) -> None:
    import yaml

    manifest = yaml.safe_load((FOLDER / "manifest.yaml").read_text())
    host, _, port = cluster.url.rpartition("/")[2].rpartition(":")
    settings = {"host": host, "port": int(port), "catalog": "floe"}
    manifest["plugins"]["compute"] = {"type": "trino", "config": settings}
    MANIFEST.write_text(yaml.safe_dump(manifest, sort_keys=False))
    print(f"Trino at {cluster.url}, manifest: {MANIFEST}")


def _run(cluster: Any) -> int:
    """Run all products, and kill a node as soon as models are being built."""
    command = [
        str(Path(sys.executable).with_name("floe-dagster")),
        "run",
        "--manifest",
        str(MANIFEST),
    ]
    run = subprocess.Popen(command)
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
    import yaml

    from floe_dagster.home import FloeHome
    from floe_dagster.iceberg.catalogs import open_catalog
    from floe_dagster.schemas.artifacts import PluginRef

    plugins = yaml.safe_load(MANIFEST.read_text())["plugins"]
    home = FloeHome(Path(os.environ["FLOE_HOME"]))
    catalog = open_catalog(PluginRef(**plugins["catalog"]), PluginRef(**plugins["storage"]), home=home)
    print(f"\n{'table':42} {'rows':>7}  PyIceberg = Trino")
    different = tables = 0
    for product in sorted(control.ROOT.glob("products/*/floe.yaml")):
        slug = product.parent.name
        for identifier in sorted(catalog.list_tables(slug)):
            rows = catalog.load_table(identifier).scan().to_arrow().num_rows
            counted = cluster.query(f'select count(*) from floe."{slug}"."{identifier[-1]}"').rows[0][0]
            different += rows != counted
            tables += 1
            print(f"{slug + '.' + identifier[-1]:42} {rows:>7}  {'yes' if rows == counted else 'NO'}")
        left = catalog.list_tables(f"floe_audit_{slug}")
        clones = [name for name in left if "floe.clone-of" in catalog.load_table(name).properties]
        if clones:
            different += 1
            print(f"left behind: {clones}")
    return 1 if different or not tables else 0


if __name__ == "__main__":
    raise SystemExit(main())
