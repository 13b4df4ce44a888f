"""Kubernetes' batch API over HTTP, whose pods are processes of this machine: what a run launcher sees of a cluster.

Jobs come from the real `K8sRunLauncher` through the real client. A pod runs the arguments of its container, with the
environment that its spec gives and an empty folder as its volume; it never starts a second time. The test plays the node:
it kills a pod, and the API tells of it what a kubelet would.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

JOBS = re.compile(r"^/apis/batch/v1/namespaces/([^/]+)/jobs(?:/([^/]+))?(/status)?$")
PODS = re.compile(r"^/api/v1/namespaces/([^/]+)/pods(?:/([^/]+))?$")
EVENTS = re.compile(r"^/api/v1/namespaces/([^/]+)/events$")
OOM_KILLED = {"reason": "OOMKilled", "exitCode": 137}
GRACE_SECONDS = 30
"""Kubernetes' default of `terminationGracePeriodSeconds`."""
HOME_MOUNT = "/var/lib/floe"


@dataclass
class Pod:
    """One pod of a job."""

    job: dict[str, Any]
    process: subprocess.Popen[bytes]
    volume: Path
    log: Path
    ended: dict[str, Any] = field(default_factory=dict)
    """What the node says of the container's end, where it was not the container's own."""
    evicted: str | None = None

    @property
    def name(self) -> str:
        return str(self.job["metadata"]["name"])

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.job["spec"]["template"]["metadata"]["labels"]
        return labels

    @property
    def container(self) -> dict[str, Any]:
        [container] = self.job["spec"]["template"]["spec"]["containers"]
        found: dict[str, Any] = container
        return found

    def kill(self, **ended: Any) -> None:
        """End the pod and all in it, as the kernel does where a container's memory runs out.

        Args:
            ended: Of the container's state `terminated`.
        """
        self.ended = ended or dict(OOM_KILLED)
        self._signal(signal.SIGKILL)
        self.process.wait()

    def evict(self, message: str) -> None:
        """End the pod as a kubelet does that needs its node's resources: no time to say goodbye.

        Args:
            message: Of the pod's status.
        """
        self.evicted = message
        self.kill(reason="Error", exitCode=137)

    def terminate(self) -> None:
        """Ask the container's first process to end, as a drained node does, and end it when its time is up."""
        self.process.send_signal(signal.SIGTERM)
        grace = self.job["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", GRACE_SECONDS)
        threading.Timer(grace, self._end_of_grace).start()

    def _end_of_grace(self) -> None:
        if self.process.poll() is None:
            self.kill(reason="Error", exitCode=137)

    def _signal(self, number: int) -> None:
        # A pod is a session: dbt and the step are in it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def status(self) -> dict[str, Any]:
        code = self.process.poll()
        if code is None:
            return {
                "phase": "Running",
                "containerStatuses": [
                    self._container({"running": {"startedAt": now()}}, ready=True),
                ],
            }
        terminated = {"reason": "Completed" if code == 0 else "Error", "exitCode": code, **self.ended}
        status: dict[str, Any] = {
            "phase": "Succeeded" if code == 0 else "Failed",
            "containerStatuses": [self._container({"terminated": terminated}, ready=False)],
        }
        if self.evicted:
            status |= {"reason": "Evicted", "message": self.evicted}
        return status

    def _container(self, state: dict[str, Any], ready: bool) -> dict[str, Any]:
        container = self.container
        return {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": ready,
            "restartCount": 0,
            "state": state,
        }


class Cluster:
    """The API server and its one node.

    Args:
        folder: For volumes, logs and the client's configuration.
        secrets: Content of Secrets by name: what a `secretKeyRef` gives.
    """

    def __init__(self, folder: Path, secrets: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self.folder = folder
        self.secrets = dict(secrets or {})
        self.pods: list[Pod] = []
        self._lock = threading.Lock()
        cluster = self

        class Handler(_Handler):
            def answer(self, method: str, body: Any) -> tuple[int, Any]:
                return cluster.answer(method, self.path, body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def kubeconfig(self) -> Path:
        """Write the client's configuration and return its path."""
        file = self.folder / "kubeconfig.yaml"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {}}],
        }
        file.write_text(yaml.safe_dump(document))
        return file

    def pod_of(self, run_id: str) -> Pod | None:
        """Return the pod of a run."""
        return next((pod for pod in self.pods if pod.labels["dagster/run-id"] == run_id), None)

    def stop(self) -> None:
        """End all pods and the server."""
        for pod in self.pods:
            if pod.process.poll() is None:
                pod.kill()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Return status and content for a request."""
        url = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        with self._lock:
            if found := JOBS.match(url.path):
                return self._jobs(method, found[2], body)
            if found := PODS.match(url.path):
                if method == "DELETE":
                    return 200, {}
                return 200, {"kind": "PodList", "items": [_pod(pod) for pod in self._selected(query)]}
            if EVENTS.match(url.path):
                return 200, {"kind": "EventList", "items": []}
        return 404, {"kind": "Status", "reason": "NotFound", "code": 404, "message": f"{method} {path}"}

    def _jobs(self, method: str, name: str | None, body: Any) -> tuple[int, Any]:
        if method == "POST":
            if any(pod.name == body["metadata"]["name"] for pod in self.pods):
                return 409, {"kind": "Status", "reason": "AlreadyExists", "code": 409}
            self.pods.append(self._start(body))
            return 201, body
        pod = next((pod for pod in self.pods if pod.name == name), None)
        if pod is None:
            return 404, {"kind": "Status", "reason": "NotFound", "code": 404}
        if method == "DELETE":
            pod.terminate()
            return 200, {"kind": "Status", "status": "Success"}
        code = pod.process.poll()
        counts = {"active": 1} if code is None else {"succeeded": 1} if code == 0 else {"failed": 1}
        return 200, {**pod.job, "status": {"startTime": now(), **counts}}

    def _selected(self, query: Mapping[str, str]) -> list[Pod]:
        wanted = {
            *re.findall(r"job-name=([^,]+)", query.get("labelSelector", "")),
            *re.findall(r"metadata\.name=([^,]+)", query.get("fieldSelector", "")),
        }
        return [pod for pod in self.pods if pod.name in wanted]

    def _start(self, job: dict[str, Any]) -> Pod:
        volume = self.folder / "volumes" / job["metadata"]["name"]
        volume.mkdir(parents=True)
        log = volume.with_suffix(".log")
        pod_spec = job["spec"]["template"]["spec"]
        [container] = pod_spec["containers"]
        assert any(mount["mountPath"] == HOME_MOUNT for mount in container["volumeMounts"]), container
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        environment |= {"FLOE_HOME": str(volume), "PYTHONPATH": os.getcwd()}
        for entry in container["env"]:
            value = self._value(entry)
            if value is not None:
                environment[entry["name"]] = value
        assert container["args"][0] == "dagster", container["args"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *container["args"]],
                env=environment,
                cwd=volume,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Pod(job, process, volume, log)

    def _value(self, entry: Mapping[str, Any]) -> str | None:
        source = (entry.get("valueFrom") or {}).get("secretKeyRef")
        if source is None:
            return str(entry.get("value") or "")
        try:
            return self.secrets[source["name"]][source["key"]]
        except KeyError:
            assert source.get("optional"), f"no Secret for {entry}"
            return None


def _pod(pod: Pod) -> dict[str, Any]:
    template = pod.job["spec"]["template"]
    return {
        "metadata": {**template["metadata"], "name": pod.name},
        "spec": template["spec"],
        "status": pod.status(),
    }


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, method: str, body: Any) -> tuple[int, Any]:
        raise NotImplementedError

    def _respond(self, method: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        status, content = self.answer(method, body)
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self._respond("GET")

    def do_POST(self) -> None:
        self._respond("POST")

    def do_DELETE(self) -> None:
        self._respond("DELETE")

    def log_message(self, format: str, *args: Any) -> None:
        pass
