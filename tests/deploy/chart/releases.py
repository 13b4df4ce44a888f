"""A release that was there before: what `helm upgrade` would send, without a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.chart.rendering import (
    KUBERNETES,
    MANIFEST,
    NAMESPACE,
    RELEASE,
    Rendered,
    chart_folder,
    helm,
    needed,
)


class _Answers(BaseHTTPRequestHandler):
    """As much of Kubernetes' API as Helm asks for before it renders: the version, and which kinds there are."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        major, minor, _ = KUBERNETES.split(".")
        known = {
            "/version": {"major": major, "minor": minor, "gitVersion": f"v{KUBERNETES}"},
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
            "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
        }
        self.send_response(200 if path in known else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(known.get(path, {})).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def _cluster(folder: Path) -> Iterator[Path]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "stub",
        "clusters": [{"name": "stub", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": "stub", "context": {"cluster": "stub", "user": "stub"}}],
        "users": [{"name": "stub", "user": {}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    try:
        yield path
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def upgraded(values: str, revision: int, changes: dict[str, Any] | None = None) -> Rendered:
    """Return what an upgrade to a revision would send; hooks are among it.

    Args:
        values: One of the chart's value files.
        revision: Of the release after the upgrade.
        changes: Values that come last.
    """
    stamp = "2026-01-01T00:00:00Z"
    before = {
        "name": RELEASE,
        "namespace": NAMESPACE,
        "version": revision - 1,
        "info": {"status": "deployed", "first_deployed": stamp, "last_deployed": stamp},
        "chart": {"metadata": {"name": RELEASE, "version": "0.0.1", "apiVersion": "v2"}, "templates": []},
        "config": {},
        "manifest": "",
    }
    with tempfile.TemporaryDirectory() as temporary, _cluster(Path(temporary)) as kubeconfig:
        folder = Path(temporary)
        (folder / "before.yaml").write_text(yaml.safe_dump([before]))
        (folder / "changes.json").write_text(json.dumps(changes or {}))
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": temporary,
            "KUBECONFIG": str(kubeconfig),
            "HELM_DRIVER": "memory",
            "HELM_MEMORY_DRIVER_DATA": str(folder / "before.yaml"),
        }
        command = [str(helm()), "upgrade", RELEASE, str(chart_folder()), "--namespace", NAMESPACE]
        command += ["--dry-run=client", "--output", "json", "--values", str(chart_folder() / values)]
        command += needed() if values == "values.yaml" else ()
        command += ["--values", str(folder / "changes.json"), "--set-file", f"manifest={MANIFEST}"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    release = json.loads(done.stdout)
    assert release["version"] == revision
    texts = [release["manifest"], *(hook["manifest"] for hook in release["hooks"])]
    return Rendered(tuple(d for text in texts for d in yaml.safe_load_all(text) if d))
