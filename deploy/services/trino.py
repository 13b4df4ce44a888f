"""Starts and stops a real Trino beside MinIO and the REST catalog, for development and tests.

    python deploy/services/trino.py up   [--folder .floe/trino] [--workers 1] [--fault-tolerant] [--password] [--jwt]
    python deploy/services/trino.py down [--folder .floe/trino]

Coordinator and workers bind the loopback address, on free ports. `up` starts MinIO and the catalog, too, where they do
not run (control.py), and writes `trino.json` (where Trino listens) and `environment` (its secrets, as NAME=value,
readable by the owner alone). Catalogs: `floe` is the REST catalog, `tpch` and `tpcds` make their rows themselves,
`memory` forgets them. The server is fetched once, into `--tools` (`.floe/tools`).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import control

VERSION = "476"
ARTIFACT = f"io.trino:trino-server:{VERSION}:tar.gz"
MINIMUM_JAVA = 24
USER = "floe"
START_SECONDS = 180
PLUGINS = (
    "exchange-filesystem",
    "geospatial",  # functions that other engines have, too
    "iceberg",
    "memory",
    "password-authenticators",
    "resource-group-managers",
    "session-property-managers",
    "tpcds",
    "tpch",
)
"""What is unpacked of the server's plugins; the other fifty are as large as everything else together."""
INSTALL_JAVA = (
    f"Trino {VERSION} needs Java {MINIMUM_JAVA} or newer. Install one beside the Java that is there (temurin-25-jdk from "
    "https://adoptium.net/installation/linux, or openjdk-25-jdk-headless where the distribution has it), or set "
    "JAVA_HOME; Java 17 can stay the default"
)


@dataclass(frozen=True)
class Options:
    """What kind of Trino is wanted."""

    workers: int = 1
    heap: str = "1G"
    fault_tolerant: bool = False
    """`retry-policy=TASK`, with an exchange manager on this machine's disk."""
    password: bool = False
    """TLS with a certificate of our own, and a password that is generated; else HTTP, where anybody is anybody."""
    jwt: bool = False
    """Tokens, too, that are signed with a key which is generated (`Cluster.token`); with `password` only."""
    resource_groups: Mapping[str, Any] | None = None
    """The document of the resource group manager."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """More for config.properties of every node, such as query.max-execution-time; they win."""
    catalog_settings: Mapping[str, str] = field(default_factory=dict)
    """More for the catalog `floe`; they win."""


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


def main() -> int:
    """Run one command; 0 fine, 1 where a service cannot be had."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("up", "down", "build"))
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
    folder, services, tools = (path.resolve() for path in (options.folder, options.services, options.tools))
    try:
        if options.command == "down":
            Cluster(folder, tools, services).stop()
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
    except control.ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def build(tools: Path) -> Path:
    """Fetch and unpack the server where that is not done yet, and return its folder.

    Raises:
        ServiceError: Maven or a new enough Java is missing, or Maven fails.
    """
    find_java()
    server = tools / f"trino-server-{VERSION}"
    stamp = server / "unpacked"
    wanted = " ".join(PLUGINS)
    if stamp.exists() and stamp.read_text() == wanted:
        return server
    control._need("mvn")
    print("fetching Trino (820 MB, once)", flush=True)
    staging = tools / f"trino-{os.getpid()}"
    try:
        copy = ["dependency:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={staging}"]
        control._run(["mvn", "-q", "-B", *copy])
        unpacked = staging / "server"
        _unpack(staging / f"trino-server-{VERSION}.tar.gz", unpacked)
        (unpacked / "unpacked").write_text(wanted)
        shutil.rmtree(server, ignore_errors=True)
        unpacked.replace(server)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return server


def _unpack(archive: Path, into: Path) -> None:
    """Unpack what is wanted; a file that several plugins have is in the archive once, maybe in one that is not."""
    wanted: dict[str, list[tuple[str, int]]] = {}
    for member in _members(archive):
        name = member.name.partition("/")[2]
        if _is_wanted(name) and not member.isdir():
            source = member.linkname if member.islnk() else member.name
            wanted.setdefault(source, []).append((name, member.mode))
    with tarfile.open(archive, "r|gz") as read:
        for member in read:
            places = wanted.get(member.name, []) if member.isreg() else []
            for number, (name, mode) in enumerate(places):
                target = into / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if number:
                    os.link(into / places[0][0], target)
                    continue
                content: IO[bytes] | None = read.extractfile(member)
                assert content is not None
                with open(target, "wb") as written:
                    shutil.copyfileobj(content, written, 1 << 20)
                target.chmod(mode)


def _members(archive: Path) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(archive, "r|gz") as read:
        yield from read


def _is_wanted(name: str) -> bool:
    top, _, rest = name.partition("/")
    return top in ("bin", "lib", "NOTICE") or (top == "plugin" and rest.partition("/")[0] in PLUGINS)


def find_java() -> Path:
    """Return the folder of a Java that Trino runs on: JAVA_HOME's, the one on PATH, or one that is installed.

    Raises:
        ServiceError: All are too old, or there is none; with what to install.
    """
    candidates = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    if found := shutil.which("java"):
        candidates.append(Path(found).resolve().parent.parent)
    candidates += sorted(Path("/usr/lib/jvm").glob("*"), reverse=True)
    candidates += sorted(Path("/Library/Java/JavaVirtualMachines").glob("*/Contents/Home"), reverse=True)
    seen = {}
    for home in candidates:
        if (home / "bin" / "java").exists() and home not in seen:
            seen[home] = _java_version(home)
            if seen[home] >= MINIMUM_JAVA:
                return home
    there = ", ".join(f"{version} in {home}" for home, version in seen.items()) or "none"
    raise control.ServiceError(f"{INSTALL_JAVA} (found: {there})")


def _java_version(home: Path) -> int:
    try:
        text = (home / "release").read_text()
    except OSError:
        done = subprocess.run(
            [home / "bin" / "java", "-version"], capture_output=True, text=True, check=False
        )
        text = done.stderr
    found = re.search(r'(?:JAVA_VERSION=|version )"(\d+)', text)
    return int(found[1]) if found else 0


class Cluster:
    """A coordinator, which works too, and its workers; the nodes are called coordinator, worker-1, worker-2 …"""

    def __init__(self, folder: Path, tools: Path, services: Path, options: Options | None = None) -> None:
        self.folder = folder
        self.server = tools / f"trino-server-{VERSION}"
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
        return control._read_environment(self.folder)

    def start(self) -> None:
        """Start what does not run yet and wait for all of it; on the ports that it had in this folder.

        Raises:
            ServiceError: A node does not come up in time, or the services that it needs were never started.
        """
        if not control.read_state(self.services):
            raise control.ServiceError(f"no services in {self.services}: start them with control.py up")
        self.folder.mkdir(parents=True, exist_ok=True)
        asked = json.loads(json.dumps(asdict(self.options)))
        if self.state.get("options") != asked:
            self.stop()
        ports = self.state.get("ports", {})
        for name in [*self.names, "https"]:
            ports.setdefault(name, control._free_port())
        self.state = {"options": asked, "ports": ports, "pids": self.state.get("pids", {})}
        self.state["url"] = self.url
        known, names = self.environment, ("PASSWORD", "SHARED_SECRET", "KEYSTORE_PASSWORD", "TOKEN_KEY")
        if missing := {f"TRINO_{name}" for name in names} - known.keys():
            made = {name: secrets.token_hex(24) for name in sorted(missing)}
            control._write_environment(self.folder, {**known, **made})
        if self.options.password:
            self._make_certificate()
        self._write()
        try:
            for name in self.names:
                if not self.is_running(name):
                    self.start_node(name, wait=False)
            self.wait()
        except control.ServiceError:
            self.stop()
            raise

    def start_node(self, name: str, wait: bool = True) -> None:
        """Start one node, and wait until it takes part.

        Raises:
            ServiceError: It does not come up in time.
        """
        self._configure(name)
        home = self.folder / name
        # The launcher takes a process that has just been killed for one that runs.
        (home / "var" / "run" / "launcher.pid").unlink(missing_ok=True)
        environment = {
            **control._read_environment(self.services),
            **self.environment,
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(home),
            "JAVA_HOME": str(find_java()),
        }
        for secret in [name for name in environment if "ROOT" in name]:
            del environment[secret]
        command = [str(self.server / "bin" / "launcher"), "run"]
        command += ["--etc-dir", str(home / "etc"), "--data-dir", str(home)]
        with open(self.folder / f"{name}.log", "ab") as log:
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
            control.stop_one(self.state["pids"][name], how)
        self.state["pids"].pop(name, None)
        self._write()

    def is_running(self, name: str) -> bool:
        """Tell whether a node's process is there."""
        pid = self.state.get("pids", {}).get(name)
        if not pid or not control._is_alive(pid):
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
                    raise control.ServiceError(f"{name} of Trino ended; {self._end_of_log(name)}")
            waiting = [name for name in waiting if self._is_starting(name)]
            if not waiting and len(self.nodes()) == wanted:
                return
            time.sleep(0.25)
        name = waiting[0] if waiting else "coordinator"
        raise control.ServiceError(f"{name} of Trino is not ready; {self._end_of_log(name)}")

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
            content = response.read()
        return json.loads(content) if content else None

    def token(self, user: str = USER, seconds: float = 3600) -> str:
        """Return a token as an identity provider would issue it, good for that long."""
        claims = {"sub": user, "exp": int(time.time() + seconds)}
        parts = [_base64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
        signature = hmac.digest(self._token_key(), ".".join(parts).encode(), "sha256")
        return ".".join([*parts, _base64url(signature)])

    def _token_key(self) -> bytes:
        # The 48 digits, not the 24 bytes: fewer than 32 are refused.
        return self.environment["TRINO_TOKEN_KEY"].encode()

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
            (self.folder / "trino.json").write_text(json.dumps(self.state, indent=2) + "\n")

    def _make_certificate(self) -> None:
        """Make a key with a certificate of its own, and the file of passwords, where they are not there."""
        keystore = self.folder / "keystore.p12"
        if not keystore.exists():
            keytool = str(find_java() / "bin" / "keytool")
            store = [
                "-keystore",
                str(keystore),
                "-storepass:env",
                "TRINO_KEYSTORE_PASSWORD",
                "-alias",
                "trino",
            ]
            environment = {"PATH": os.environ.get("PATH", ""), **self.environment}
            make = [
                keytool,
                "-genkeypair",
                "-keyalg",
                "EC",
                "-groupname",
                "secp256r1",
                "-storetype",
                "PKCS12",
            ]
            names = ["-dname", "CN=localhost", "-ext", "san=ip:127.0.0.1,dns:localhost", "-validity", "365"]
            control._run([*make, *names, *store], env=environment)
            certificate = str(self.folder / "certificate.pem")
            control._run([keytool, "-exportcert", "-rfc", "-file", certificate, *store], env=environment)
        password, salt, rounds = self.environment["TRINO_PASSWORD"], secrets.token_bytes(16), 1000
        # Of PBKDF2 Trino knows the kind with SHA-1 and 64 bytes alone.
        hashed = hashlib.pbkdf2_hmac("sha1", password.encode(), salt, rounds, 64)
        path = self.folder / "passwords"
        path.touch(mode=0o600)
        path.write_text(f"{USER}:{rounds}:{salt.hex()}:{hashed.hex()}\n")
        if self.options.jwt:
            key = self.folder / "token-key"
            key.touch(mode=0o600)
            key.write_text(base64.b64encode(self._token_key()).decode() + "\n")

    def _configure(self, name: str) -> None:
        etc = self.folder / name / "etc"
        shutil.rmtree(etc, ignore_errors=True)
        node = {
            "node.environment": "floe",
            "node.id": name,
            "node.data-dir": str(self.folder / name),
            # Airlift would take the name of the host, and with it an address that others reach.
            "node.bind-ip": "127.0.0.1",
            "node.internal-address": "127.0.0.1",
        }
        _properties(etc / "node.properties", node)
        _properties(etc / "config.properties", {**self._config(name), **self.options.settings})
        (etc / "jvm.config").write_text("\n".join(self._jvm()) + "\n")
        _properties(etc / "log.properties", {"io.trino": "INFO", "io.airlift": "WARN"})
        _properties(etc / "catalog" / "floe.properties", {**self._catalog(), **self.options.catalog_settings})
        _properties(etc / "catalog" / "memory.properties", {"connector.name": "memory"})
        _properties(etc / "catalog" / "tpcds.properties", {"connector.name": "tpcds"})
        # As the benchmark and other engines call the columns: l_quantity, not quantity.
        standard = {"connector.name": "tpch", "tpch.column-naming": "STANDARD"}
        _properties(etc / "catalog" / "tpch.properties", standard)
        if self.options.fault_tolerant:
            exchange = self.folder / "exchange"
            exchange.mkdir(exist_ok=True)
            settings = {"exchange-manager.name": "filesystem", "exchange.base-directories": str(exchange)}
            _properties(etc / "exchange-manager.properties", settings)
        if name != "coordinator":
            return
        if self.options.password:
            passwords = self.folder / "passwords"
            settings = {"password-authenticator.name": "file", "file.password-file": str(passwords)}
            _properties(etc / "password-authenticator.properties", settings)
        if self.options.resource_groups is not None:
            groups = etc / "resource-groups.json"
            groups.write_text(json.dumps(self.options.resource_groups, indent=2) + "\n")
            settings = {
                "resource-groups.configuration-manager": "file",
                "resource-groups.config-file": str(groups),
            }
            _properties(etc / "resource-groups.properties", settings)

    def _config(self, name: str) -> dict[str, str]:
        ports = self.state["ports"]
        settings = {
            "coordinator": str(name == "coordinator").lower(),
            "http-server.http.port": str(ports[name]),
            "discovery.uri": f"http://127.0.0.1:{ports['coordinator']}",
            "plugin.dir": str(self.server / "plugin"),
            "catalog.config-dir": str(self.folder / name / "etc" / "catalog"),
            "internal-communication.shared-secret": "${ENV:TRINO_SHARED_SECRET}",
            # A node that was killed is given up after ten seconds, not after a minute.
            "query.remote-task.max-error-duration": "10s",
        }
        if name == "coordinator":
            settings["node-scheduler.include-coordinator"] = "true"
            if self.options.password:
                settings |= {
                    "http-server.authentication.type": "PASSWORD,JWT" if self.options.jwt else "PASSWORD",
                    # Only the nodes speak HTTP, with the shared secret.
                    "http-server.authentication.allow-insecure-over-http": "false",
                    "http-server.https.enabled": "true",
                    "http-server.https.port": str(ports["https"]),
                    "http-server.https.keystore.path": str(self.folder / "keystore.p12"),
                    "http-server.https.keystore.key": "${ENV:TRINO_KEYSTORE_PASSWORD}",
                }
            if self.options.jwt:
                settings["http-server.authentication.jwt.key-file"] = str(self.folder / "token-key")
        if self.options.fault_tolerant:
            settings |= {
                "retry-policy": "TASK",
                # The defaults (5 GB a task) do not fit a small heap.
                "fault-tolerant-execution-task-memory": "128MB",
                "fault-tolerant-execution-coordinator-task-memory": "128MB",
                "query.max-memory-per-node": "400MB",
            }
        return settings

    def _jvm(self) -> list[str]:
        return [
            "-server",
            f"-Xmx{self.options.heap}",
            "-XX:G1HeapRegionSize=4M",
            "-XX:+ExplicitGCInvokesConcurrent",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-OmitStackTraceInFastThrow",
            "-XX:ReservedCodeCacheSize=256M",
            "-XX:PerMethodRecompilationCutoff=10000",
            "-XX:PerBytecodeRecompilationCutoff=10000",
            "-Djdk.attach.allowAttachSelf=true",
            "-Djdk.nio.maxCachedBufferSize=2000000",
            "-Dfile.encoding=UTF-8",
            "-XX:+EnableDynamicAgentLoading",
        ]

    def _catalog(self) -> dict[str, str]:
        services = control.read_state(self.services)
        manifest = control.yaml.safe_load((self.services / "manifest.yaml").read_text())
        catalog = manifest["plugins"]["catalog"]["config"]
        storage = manifest["plugins"]["storage"]["config"]
        return {
            "connector.name": "iceberg",
            "iceberg.catalog.type": "rest",
            "iceberg.rest-catalog.uri": services["catalog"],
            "iceberg.rest-catalog.warehouse": catalog["warehouse"],
            "iceberg.rest-catalog.security": "OAUTH2",
            "iceberg.rest-catalog.oauth2.credential": (
                f"{catalog['oauth2']['client_id']}:${{ENV:POLARIS_CLIENT_SECRET}}"
            ),
            "iceberg.register-table-procedure.enabled": "true",
            "iceberg.allowed-extra-properties": "*",
            "fs.native-s3.enabled": "true",
            "s3.endpoint": services["minio"],
            "s3.region": storage["region"],
            "s3.path-style-access": "true",
            "s3.aws-access-key": storage["access_key_id"],
            "s3.aws-secret-key": "${ENV:MINIO_SECRET_ACCESS_KEY}",
        }


def _start_services(folder: Path, tools: Path) -> None:
    """Start MinIO and the catalog, and make the bucket and its user."""
    # `import trino` has to find Trino's client from here on, not this script.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != control.HERE]
    from floe_dagster.cli import main as floe

    control.build(tools)
    control.start(folder, tools)
    os.environ |= control._read_environment(folder)
    if code := floe(["platform", "bootstrap", "--manifest", str(folder / "manifest.yaml")]):
        raise control.ServiceError(f"`floe-dagster platform bootstrap` ended with {code}")


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _properties(path: Path, settings: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return loaded


if __name__ == "__main__":
    raise SystemExit(main())
