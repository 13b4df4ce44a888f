"""Starts and stops the real services for development and tests: MinIO and the Iceberg project's REST catalog.

    python -m deploy.services.control up   [--folder .floe/services] [--token-seconds 3600]
    python -m deploy.services.control down [--folder .floe/services]

Both bind the loopback address, on free ports, with generated credentials. `up` writes `services.json` (where they
listen), `environment` (the secrets, as NAME=value, readable by the owner alone) and `manifest.yaml`: manifests/demo.yaml
with their addresses in it. What has to be built is built once, into `--tools` (`.floe/tools`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from deploy.services.environment import read_environment, write_environment
from deploy.services.programs import ServiceError, free_port, is_alive, need, open_private, run, stop_process
from floe_dagster.atomic import write_atomically

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MINIO_VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
BUCKET = "floe-warehouse"
SIGNS = {"minio": "minio-", "catalog": "LocalCatalogServer"}
"""What the command line of each service holds."""
START_SECONDS = 60


def main() -> int:
    """Run one command; 0 fine, 1 where a service cannot be had."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("up", "down", "build"))
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".floe" / "services", help="data, logs, settings"
    )
    parser.add_argument("--tools", type=Path, default=ROOT / ".floe" / "tools", help="what is built once")
    parser.add_argument("--token-seconds", type=int, default=3600, help="life of a catalog token")
    options = parser.parse_args()
    folder, tools = options.folder.resolve(), options.tools.resolve()
    try:
        if options.command == "down":
            stop(folder)
            return 0
        build(tools)
        if options.command == "up":
            start(folder, tools, options.token_seconds)
        else:
            build_collector(tools)
    except ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def build(tools: Path) -> None:
    """Build MinIO and fetch and compile the catalog, where that is not done yet.

    Raises:
        ServiceError: A toolchain is missing or fails.
    """
    tools.mkdir(parents=True, exist_ok=True)
    minio = tools / f"minio-{MINIO_VERSION}"
    if not minio.exists():
        need("go")
        print("building MinIO (a few minutes, once)", flush=True)
        staging = tools / f"go-{os.getpid()}"
        environment = {**os.environ, "GOBIN": str(staging)}
        run(["go", "install", f"github.com/minio/minio@{MINIO_VERSION}"], env=environment)
        (staging / "minio").replace(minio)
        shutil.rmtree(staging, ignore_errors=True)
    classes = tools / "rest-catalog"
    source = HERE / "rest-catalog" / "src" / "org" / "apache" / "iceberg" / "rest" / "LocalCatalogServer.java"
    wanted = source.read_text() + (HERE / "rest-catalog" / "pom.xml").read_text()
    stamp = classes / "built-from"
    if not stamp.exists() or stamp.read_text() != wanted:
        for tool in ("java", "javac", "mvn"):
            need(tool)
        print("fetching the Iceberg REST catalog (half a minute, once)", flush=True)
        shutil.rmtree(classes, ignore_errors=True)
        libraries = classes / "lib"
        run(
            ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={libraries}"],
            cwd=HERE / "rest-catalog",
        )
        run(["javac", "-cp", f"{libraries}/*", "-d", str(classes / "classes"), str(source)])
        stamp.write_text(wanted)


def build_collector(tools: Path) -> Path:
    """Build the OpenTelemetry collector that the tests export to, where that is not done yet, and return it.

    Raises:
        ServiceError: Go is missing or fails.
    """
    source = HERE / "collector"
    binary = tools / "collector" / "floe-collector"
    stamp = binary.with_name("built-from")
    wanted = "".join((source / name).read_text() for name in ("go.mod", "go.sum", "main.go"))
    if not stamp.exists() or stamp.read_text() != wanted:
        need("go")
        print("building the OpenTelemetry collector (a minute, once)", flush=True)
        binary.parent.mkdir(parents=True, exist_ok=True)
        staging = binary.with_name(f"{binary.name}-{os.getpid()}")
        run(["go", "build", "-trimpath", "-buildvcs=false", "-o", str(staging), "."], cwd=source)
        staging.replace(binary)
        stamp.write_text(wanted)
    return binary


def start(folder: Path, tools: Path, token_seconds: int = 3600) -> dict[str, Any]:
    """Start both services and write how to reach them; where they already run, nothing happens.

    Raises:
        ServiceError: One of them does not answer in time.
    """
    known = read_state(folder)
    if (
        known
        and set(known["pids"]) == set(SIGNS)
        and all(_is_ours(*entry) for entry in known["pids"].items())
    ):
        print(f"already running; {folder / 'services.json'}")
        return known
    folder.mkdir(parents=True, exist_ok=True)
    names = ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", "MINIO_SECRET_ACCESS_KEY", "POLARIS_CLIENT_SECRET")
    environment = read_environment(folder) or {name: secrets.token_urlsafe(24) for name in names}
    write_environment(folder, environment)
    ports = known["ports"] if known else {"minio": free_port(), "catalog": free_port()}
    state: dict[str, Any] = {"ports": ports, "pids": {}, "token_seconds": token_seconds}
    state["minio"] = f"http://127.0.0.1:{ports['minio']}"
    state["catalog"] = f"http://127.0.0.1:{ports['catalog']}"
    for name in ("minio", "catalog"):
        state["pids"][name] = start_one(name, folder, tools, state)
        _write_state(folder, state)
    for name in ("minio", "catalog"):
        wait_for(name, state, folder)
    _write_manifest(folder, state)
    print(f"MinIO at {state['minio']}, Iceberg REST catalog at {state['catalog']}")
    return state


def start_one(name: str, folder: Path, tools: Path, state: dict[str, Any]) -> int:
    """Start one service in a session of its own and return its process id."""
    environment = read_environment(folder)
    data = folder / name
    data.mkdir(parents=True, exist_ok=True)
    if name == "minio":
        command = [str(tools / f"minio-{MINIO_VERSION}"), "server", "--quiet"]
        command += ["--address", f"127.0.0.1:{state['ports']['minio']}", str(data)]
        settings = {
            "MINIO_ROOT_USER": environment["MINIO_ROOT_USER"],
            "MINIO_ROOT_PASSWORD": environment["MINIO_ROOT_PASSWORD"],
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
        }
    else:
        classes = tools / "rest-catalog"
        command = ["java", "-Xmx512m", "-cp", f"{classes / 'classes'}:{classes / 'lib'}/*"]
        command.append("org.apache.iceberg.rest.LocalCatalogServer")
        settings = {
            "FLOE_PORT": str(state["ports"]["catalog"]),
            "FLOE_TOKEN_SECONDS": str(state["token_seconds"]),
            "FLOE_PRINCIPALS": f"floe-etl:{environment['POLARIS_CLIENT_SECRET']}:* "
            f"floe-narrow:{environment['POLARIS_CLIENT_SECRET']}:financial_risk",
            "CATALOG_CATALOG__IMPL": "org.apache.iceberg.jdbc.JdbcCatalog",
            "CATALOG_URI": f"jdbc:sqlite:{data / 'catalog.db'}?busy_timeout=30000",
            "CATALOG_WAREHOUSE": f"s3://{BUCKET}/warehouse",
            "CATALOG_IO__IMPL": "org.apache.iceberg.aws.s3.S3FileIO",
            "CATALOG_S3_ENDPOINT": state["minio"],
            "CATALOG_S3_PATH__STYLE__ACCESS": "true",
            "CATALOG_S3_ACCESS__KEY__ID": environment["MINIO_ROOT_USER"],
            "CATALOG_S3_SECRET__ACCESS__KEY": environment["MINIO_ROOT_PASSWORD"],
            "AWS_REGION": "us-east-1",
        }
    with open(folder / f"{name}.log", "ab", opener=open_private) as log:
        process = subprocess.Popen(
            command,
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(folder), **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    return process.pid


def wait_for(name: str, state: dict[str, Any], folder: Path) -> None:
    """Wait until a service answers.

    Raises:
        ServiceError: It ended, or `START_SECONDS` went by; with the end of its log.
    """
    url = f"{state['minio']}/minio/health/ready" if name == "minio" else f"{state['catalog']}/v1/config"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if not is_alive(state["pids"][name]):
            break
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except urllib.error.HTTPError as error:
            if error.code == 401:  # it asks for a token, so it is there
                return
        except OSError:
            pass
        time.sleep(0.2)
    log = (folder / f"{name}.log").read_text(errors="replace")[-2000:]
    raise ServiceError(f"{name} does not answer at {url}; the end of {folder / f'{name}.log'}:\n{log}")


def stop(folder: Path) -> None:
    """End what `up` started; the data stays."""
    state = read_state(folder)
    if not state:
        print("nothing was started")
        return
    for name, pid in state["pids"].items():
        if _is_ours(name, pid):
            stop_process(pid)
    state["pids"] = {}
    _write_state(folder, state)
    print("stopped")


def start_collector(folder: Path, tools: Path) -> dict[str, Any]:
    """Start the collector, on the ports that it had in this folder, and return where it listens and writes.

    Raises:
        ServiceError: It cannot be built, or does not answer in time.
    """
    binary = build_collector(tools)
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "collector.json"
    ports = json.loads(settings.read_text()) if settings.exists() else [free_port(), free_port()]
    settings.write_text(json.dumps(ports))
    written = folder / "telemetry.jsonl"
    endpoints = [f"127.0.0.1:{port}" for port in ports]
    pipeline = {"receivers": ["otlp"], "exporters": ["file"]}
    configuration = {
        "receivers": {
            "otlp": {"protocols": {"grpc": {"endpoint": endpoints[0]}, "http": {"endpoint": endpoints[1]}}}
        },
        "exporters": {"file": {"path": str(written), "append": True, "flush_interval": "50ms"}},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": dict.fromkeys(("traces", "metrics", "logs"), pipeline),
        },
    }
    (folder / "collector.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False))
    with open(folder / "collector.log", "ab", opener=open_private) as log:
        process = subprocess.Popen(
            [str(binary), "--config", str(folder / "collector.yaml")],
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    state = {
        "pid": process.pid,
        "grpc_endpoint": f"http://{endpoints[0]}",
        "http_endpoint": f"http://{endpoints[1]}",
        "file": str(written),
    }
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and is_alive(process.pid):
        with contextlib.suppress(OSError):
            for port in ports:
                socket.create_connection(("127.0.0.1", port), timeout=2).close()
            return state
        time.sleep(0.05)
    stop_collector(state)
    output = (folder / "collector.log").read_text(errors="replace")[-2000:]
    raise ServiceError(f"the collector does not answer; the end of {folder / 'collector.log'}:\n{output}")


def stop_collector(state: dict[str, Any], how: signal.Signals = signal.SIGTERM) -> None:
    """End the collector; what it wrote stays."""
    stop_process(state["pid"], how)


def read_state(folder: Path) -> dict[str, Any]:
    """Return what `up` noted; empty where nothing was ever started."""
    try:
        loaded: dict[str, Any] = json.loads((folder / "services.json").read_text())
    except (OSError, ValueError):
        return {}
    return loaded


def _write_state(folder: Path, state: dict[str, Any]) -> None:
    write_atomically(folder / "services.json", (json.dumps(state, indent=2) + "\n").encode())


def _write_manifest(folder: Path, state: dict[str, Any]) -> None:
    manifest = yaml.safe_load((ROOT / "manifests" / "demo.yaml").read_text())
    manifest["metadata"]["name"] = "local-services"
    manifest["metadata"]["description"] = "manifests/demo.yaml with the services of this machine."
    plugins = manifest["plugins"]
    plugins["catalog"]["type"] = "rest"
    plugins["catalog"]["config"] |= {"uri": state["catalog"], "credential_vending": False}
    plugins["storage"]["config"]["endpoint"] = state["minio"]
    del plugins["lineage_backend"]
    manifest["observability"] = {"tracing": {"exporter": "none"}, "lineage": {"transport": "noop"}}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))


def _is_ours(name: str, pid: int) -> bool:
    """Tell whether a process is the service that was started, and not another one that got its number since."""
    try:
        return is_alive(pid) and SIGNS[name] in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return is_alive(pid)


if __name__ == "__main__":
    raise SystemExit(main())
