"""A PostgreSQL of the tests: on loopback, with a password, in a folder that goes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from deploy.services.programs import free_port

ACCOUNT = "nobody"
"""Who runs it where the tests are root, whom the server refuses."""


def program(name: str) -> str:
    """Return one of its programs, of the newest version that is installed.

    Raises:
        AssertionError: It is not installed.
    """
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    found = next(
        (str(folder / name) for folder in reversed(folders) if (folder / name).exists()), shutil.which(name)
    )
    assert found, f"{name} is missing: apt-get install postgresql"
    return found


class Postgresql:
    """One server with one role and one database.

    Args:
        user: The role, a superuser.
        password: Its password.
        database: The database.
    """

    def __init__(self, user: str, password: str, database: str) -> None:
        self.user, self.password, self.database = user, password, database
        self.folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self._as = {"user": ACCOUNT} if os.getuid() == 0 else {}
        if self._as:
            shutil.chown(self.folder, ACCOUNT)
        secret = self.folder / "password"
        secret.write_text(password)
        secret.chmod(0o644)
        data = self.folder / "data"
        self._run("initdb", "-D", str(data), "-U", user, "--auth=scram-sha-256", f"--pwfile={secret}")
        self.port = free_port()
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "-D", str(data), "-w", "-l", str(self.folder / "log"), "-o", options, "start")
        self.sql(f'CREATE DATABASE "{database}"', "postgres")

    @property
    def environment(self) -> dict[str, str]:
        """What its programs read."""
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            "PATH": f"{Path(program('psql')).parent}:/usr/bin:/bin",
        }

    def sql(self, statement: str, database: str | None = None, **login: str) -> str:
        """Run a statement and return what it gives, a line per row."""
        command = [
            "psql",
            "-X",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            database or self.database,
            "-c",
            statement,
        ]
        return self.shell(command, login).stdout.strip()

    def shell(
        self, command: list[str], environment: Mapping[str, str] | None = None, **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that talks to it; a failure fails the test with what it said."""
        done = subprocess.run(
            command,
            env={**self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            **options,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, done.stderr
        return done  # type: ignore[no-any-return]

    def stop(self) -> None:
        """End it and remove its folder."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, name: str, *arguments: str) -> None:
        log = self.folder / f"{name}.log"
        with log.open("w") as output:
            done = subprocess.run(
                [program(name), *arguments],
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                **self._as,  # type: ignore[call-overload]
            )
        assert done.returncode == 0, log.read_text()
