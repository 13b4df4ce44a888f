"""What the nodes of a cluster are told: the files of their `etc`, passwords, and a certificate of their own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deploy.services import control, programs
from deploy.services.environment import read_environment
from deploy.services.trino.server import find_java
from floe_dagster.atomic import PRIVATE, write_atomically
from floe_dagster.credentials import environment_name
from floe_dagster.schemas.catalog_types.oauth2 import oauth2_scope

USER = "floe"


@dataclass(frozen=True)
class Options:
    """What kind of Trino is wanted."""

    workers: int = 1
    heap: str = "1G"
    jvm: Sequence[str] = ()
    """More options of each node's JVM."""
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
class Settings:
    """Writes the files of one cluster.

    Args:
        folder: Of the cluster; each node has one of its name in it.
        server: The unpacked server.
        services: Of MinIO and the catalog.
        options: What kind of Trino is wanted.
        ports: By node; that of `https`, too.
    """

    folder: Path
    server: Path
    services: Path
    options: Options
    ports: Mapping[str, int]

    @property
    def environment(self) -> dict[str, str]:
        """The secrets of the cluster."""
        return read_environment(self.folder)

    @property
    def token_key(self) -> bytes:
        """Signs tokens."""
        # The 48 digits, not the 24 bytes: fewer than 32 are refused.
        return self.environment["TRINO_TOKEN_KEY"].encode()

    def make_certificate(self) -> None:
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
            programs.run([*make, *names, *store], env=environment)
            certificate = str(self.folder / "certificate.pem")
            programs.run([keytool, "-exportcert", "-rfc", "-file", certificate, *store], env=environment)
        password, salt, rounds = self.environment["TRINO_PASSWORD"], secrets.token_bytes(16), 1000
        # Of PBKDF2 Trino knows the kind with SHA-1 and 64 bytes alone.
        hashed = hashlib.pbkdf2_hmac("sha1", password.encode(), salt, rounds, 64)
        line = f"{USER}:{rounds}:{salt.hex()}:{hashed.hex()}\n"
        write_atomically(self.folder / "passwords", line.encode(), mode=PRIVATE)
        if self.options.jwt:
            key = base64.b64encode(self.token_key) + b"\n"
            write_atomically(self.folder / "token-key", key, mode=PRIVATE)

    def write(self, name: str) -> None:
        """Write the files of a node anew."""
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
        ports = self.ports
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
            *self.options.jvm,
        ]

    def _catalog(self) -> dict[str, str]:
        services = control.read_state(self.services)
        manifest = yaml.safe_load((self.services / "manifest.yaml").read_text())
        catalog = manifest["plugins"]["catalog"]["config"]
        storage = manifest["plugins"]["storage"]["config"]
        return {
            **rest_catalog({**catalog, "uri": services["catalog"]}),
            "iceberg.register-table-procedure.enabled": "true",
            "iceberg.allowed-extra-properties": "*",
            "fs.native-s3.enabled": "true",
            "s3.endpoint": services["minio"],
            "s3.region": storage["region"],
            "s3.path-style-access": "true",
            "s3.aws-access-key": storage["access_key_id"],
            "s3.aws-secret-key": "${ENV:MINIO_SECRET_ACCESS_KEY}",
        }


def rest_catalog(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings with which Trino opens the catalog of a manifest, as the principal of the manifest.

    Args:
        config: `plugins.catalog.config` of the manifest. Secrets stay references, to variables of Trino's environment.
    """
    settings = {
        "connector.name": "iceberg",
        "iceberg.catalog.type": "rest",
        "iceberg.rest-catalog.uri": str(config["uri"]),
        "iceberg.rest-catalog.warehouse": str(config["warehouse"]),
    }
    if oauth2 := config.get("oauth2"):
        secret = environment_name(oauth2["client_secret"])
        settings |= {
            "iceberg.rest-catalog.security": "OAUTH2",
            "iceberg.rest-catalog.oauth2.credential": f"{oauth2['client_id']}:${{ENV:{secret}}}",
            # Without it Trino asks for the scope `catalog`, which Polaris refuses.
            "iceberg.rest-catalog.oauth2.scope": oauth2_scope(oauth2),
        }
        if oauth2.get("token_url"):
            settings["iceberg.rest-catalog.oauth2.server-uri"] = str(oauth2["token_url"])
    elif token := config.get("token"):
        # Trino takes no scope beside a token.
        settings["iceberg.rest-catalog.security"] = "OAUTH2"
        settings["iceberg.rest-catalog.oauth2.token"] = f"${{ENV:{environment_name(token)}}}"
    if config.get("credential_vending") is not False:
        settings["iceberg.rest-catalog.vended-credentials-enabled"] = "true"
    return settings


def _properties(path: Path, settings: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
