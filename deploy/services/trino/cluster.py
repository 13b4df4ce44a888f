"""A cluster: its nodes as processes of this machine, and what they answer."""

from __future__ import annotations

import base64
import hmac
import json
import os
import secrets
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.services import control, programs
from deploy.services.environment import read_environment, write_environment
from deploy.services.trino.server import find_java, server_folder
from deploy.services.trino.settings import USER, Options, Settings
from floe_dagster.atomic import write_atomically
from floe_dagster.bounded_http import read_answer

START_SECONDS = 180


@dataclass(frozen=True)
class Answer:
    """What a statement gave."""

    query_id: str
    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    stats: dict[str, Any]
    update_count: int | None = None


class QueryError(Exception):
    """Trino refused or failed a statement."""

    def __init__(self, query_id: str, error: dict[str, Any]) -> None:
        super().__init__(f"{error.get('errorName')}: {error.get('message')}")
        self.query_id = query_id
        self.name = str(error.get("errorName"))
        self.error = error


class Cluster:
    """A coordinator, which works too, and its workers; the nodes are called coordinator, worker-1, worker-2 …"""

    def __init__(self, folder: Path, tools: Path, services: Path, options: Options | None = None) -> None:
        self.folder = folder
        self.server = server_folder(tools)
        self.services = services
        self.state = _read_json(folder / "trino.json")
        self.options = options or Options(**self.state.get("options", {}))

    @property
    def names(self) -> list[str]:
        """The nodes that are wanted."""
        return ["coordinator", *(f"worker-{number + 1}" for number in range(self.options.workers))]

    @property
    def url(self) -> str:
        """Where clients go."""
        ports = self.state["ports"]
        if self.options.password:
            return f"https://127.0.0.1:{ports['https']}"
        return f"http://127.0.0.1:{ports['coordinator']}"

    @property
    def certificate(self) -> Path | None:
        """What a client has to trust; none without TLS."""
        return self.folder / "certificate.pem" if self.options.password else None

    @property
    def environment(self) -> dict[str, str]:
        """The secrets: TRINO_PASSWORD is that of the user `floe`."""
        return read_environment(self.folder)

    def start(self) -> None:
        """Start what does not run yet and wait for all of it; on the ports that it had in this folder.

        Raises:
            ServiceError: A node does not come up in time, or the services that it needs were never started.
        """
        if not control.read_state(self.services):
            raise programs.ServiceError(f"no services in {self.services}: start them with control.py up")
        self.folder.mkdir(parents=True, exist_ok=True)
        asked = json.loads(json.dumps(asdict(self.options)))
        if self.state.get("options") != asked:
            self.stop()
        ports = self.state.get("ports", {})
        for name in [*self.names, "https"]:
            ports.setdefault(name, programs.free_port())
        self.state = {"options": asked, "ports": ports, "pids": self.state.get("pids", {})}
        self.state["url"] = self.url
        known, names = self.environment, ("PASSWORD", "SHARED_SECRET", "KEYSTORE_PASSWORD", "TOKEN_KEY")
        if missing := {f"TRINO_{name}" for name in names} - known.keys():
            made = {name: secrets.token_hex(24) for name in sorted(missing)}
            write_environment(self.folder, {**known, **made})
        if self.options.password:
            self._settings.make_certificate()
        self._write()
        try:
            for name in self.names:
                if not self.is_running(name):
                    self.start_node(name, wait=False)
            self.wait()
        except programs.ServiceError:
            self.stop()
            raise

    def start_node(self, name: str, wait: bool = True) -> None:
        """Start one node, and wait until it takes part.

        Raises:
            ServiceError: It does not come up in time.
        """
        self._settings.write(name)
        home = self.folder / name
        # The launcher takes a process that has just been killed for one that runs.
        (home / "var" / "run" / "launcher.pid").unlink(missing_ok=True)
        environment = {
            **read_environment(self.services),
            **self.environment,
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(home),
            "JAVA_HOME": str(find_java()),
        }
        for secret in [name for name in environment if "ROOT" in name]:
            del environment[secret]
        command = [str(self.server / "bin" / "launcher"), "run"]
        command += ["--etc-dir", str(home / "etc"), "--data-dir", str(home)]
        with open(self.folder / f"{name}.log", "ab", opener=programs.open_private) as log:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=home,
                start_new_session=True,
            )
        self.state["pids"][name] = process.pid
        self._write()
        if wait:
            self.wait()

    def stop(self) -> None:
        """End all nodes; the settings stay, and the ports."""
        for name in reversed(list(self.state.get("pids", {}))):
            self.stop_node(name)

    def stop_node(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End one node; with SIGKILL it has no time to say so."""
        if self.is_running(name):
            programs.stop_process(self.state["pids"][name], how)
        self.state["pids"].pop(name, None)
        self._write()

    def is_running(self, name: str) -> bool:
        """Tell whether a node's process is there."""
        pid = self.state.get("pids", {}).get(name)
        if not pid or not programs.is_alive(pid):
            return False
        try:
            # Another process may have got its number since. While one program becomes another there is no command line.
            command = Path(f"/proc/{pid}/cmdline").read_text()
            return not command or str(self.folder / name) in command
        except OSError:
            return True

    def wait(self, nodes: int | None = None) -> None:
        """Wait until the coordinator answers and as many nodes as run (or `nodes`) are in its list.

        Raises:
            ServiceError: A node ended, or `START_SECONDS` went by; with the end of its log.
        """
        wanted = len(self.state["pids"]) if nodes is None else nodes
        waiting = list(self.state["pids"])
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for name in waiting:
                if not self.is_running(name):
                    raise programs.ServiceError(f"{name} of Trino ended; {self._end_of_log(name)}")
            waiting = [name for name in waiting if self._is_starting(name)]
            if not waiting and len(self.nodes()) == wanted and self._has_splits():
                return
            time.sleep(0.25)
        name = waiting[0] if waiting else "coordinator"
        raise programs.ServiceError(f"{name} of Trino is not ready; {self._end_of_log(name)}")

    def _has_splits(self) -> bool:
        """Tell whether connectors have nodes to work on, which they hear of a moment after the list has them."""
        try:
            return self.query("select count(*) from tpch.tiny.nation").rows == [[25]]
        except (OSError, QueryError):
            return False

    def nodes(self) -> list[str]:
        """Return the ids of the active nodes; none while the coordinator does not answer.

        Raises:
            HTTPError: It refuses the password.
        """
        try:
            found = self.query("select node_id from system.runtime.nodes where state = 'active'")
        except urllib.error.HTTPError as error:
            if error.code == 401:
                raise
            return []
        except (OSError, QueryError):
            return []
        return sorted(str(row[0]) for row in found.rows)

    def query(self, sql: str, **headers: str) -> Answer:
        """Run a statement to its end.

        `headers` are Trino's, `session` for X-Trino-Session and so on.

        Raises:
            QueryError: Trino refused or failed it.
        """
        answer = self.call("/v1/statement", sql.encode(), **headers)
        columns: list[dict[str, Any]] = []
        rows: list[list[Any]] = []
        while True:
            columns = answer.get("columns") or columns
            rows += answer.get("data") or []
            if "error" in answer:
                raise QueryError(answer["id"], answer["error"])
            if "nextUri" not in answer:
                break
            answer = self.call(answer["nextUri"])
        return Answer(
            answer["id"],
            [column["name"] for column in columns],
            [column["type"] for column in columns],
            rows,
            answer["stats"],
            answer.get("updateCount"),
        )

    def call(self, path: str, body: bytes | None = None, method: str | None = None, **headers: str) -> Any:
        """Send one request and return its JSON; None where there is none.

        Raises:
            OSError: Nobody answers, or the answer is an error.
        """
        request = urllib.request.Request(path if "://" in path else self.url + path, data=body, method=method)
        request.add_header("X-Trino-User", USER)
        # Else every timestamp is said to have three digits.
        request.add_header("X-Trino-Client-Capabilities", "PARAMETRIC_DATETIME")
        if self.options.password:
            credentials = f"{USER}:{self.environment['TRINO_PASSWORD']}".encode()
            request.add_header("Authorization", f"Basic {base64.b64encode(credentials).decode()}")
        for name, value in headers.items():
            request.add_header(f"X-Trino-{name.replace('_', '-').title()}", value)
        context = ssl.create_default_context(cafile=self.certificate) if self.certificate else None
        with urllib.request.urlopen(request, timeout=60, context=context) as response:
            answer = read_answer(response.read1, seconds=60)
        if answer.end != "whole":
            raise OSError(f"the answer of {request.full_url} is {answer.end}")
        return json.loads(answer.content) if answer.content else None

    def token(self, user: str = USER, seconds: float = 3600) -> str:
        """Return a token as an identity provider would issue it, good for that long."""
        claims = {"sub": user, "exp": int(time.time() + seconds)}
        parts = [_base64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
        signature = hmac.digest(self._settings.token_key, ".".join(parts).encode(), "sha256")
        return ".".join([*parts, _base64url(signature)])

    @property
    def _settings(self) -> Settings:
        return Settings(self.folder, self.server, self.services, self.options, self.state["ports"])

    def _is_starting(self, name: str) -> bool:
        try:
            # Workers speak HTTP to each other; with a password only this address is open to everybody.
            url = self.url if name == "coordinator" else f"http://127.0.0.1:{self.state['ports'][name]}"
            return bool(self.call(f"{url}/v1/info")["starting"])
        except (OSError, ValueError):
            return True

    def _end_of_log(self, name: str) -> str:
        log = self.folder / f"{name}.log"
        return f"the end of {log}:\n{log.read_text(errors='replace')[-3000:]}"

    def _write(self) -> None:
        if self.folder.exists():
            write_atomically(self.folder / "trino.json", (json.dumps(self.state, indent=2) + "\n").encode())


def write_manifest(cluster: Cluster, services: Path, path: Path) -> None:
    """Write a platform's manifest for a cluster that asks nobody for a password.

    Args:
        cluster: It runs.
        services: The manifest of MinIO and the catalog beside it; all else is taken from there.
        path: Of the file.
    """
    manifest = yaml.safe_load(services.read_text())
    host, _, port = cluster.url.rpartition("/")[2].rpartition(":")
    settings = {"host": host, "port": int(port), "catalog": "floe"}
    manifest["plugins"]["compute"] = {"type": "trino", "config": settings}
    path.write_text(yaml.safe_dump(manifest, sort_keys=False))


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return loaded
