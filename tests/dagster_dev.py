"""A running `dagster dev` on a copy of the shipped products, asked over GraphQL."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from deploy.services.programs import free_port
from tests.conftest import ROOT

Found = TypeVar("Found")

POLL_SECONDS = 0.5
STOP_SECONDS = 20


class DagsterDev:
    """One `dagster dev` and all that it starts, in a session of its own.

    Args:
        project: Folder with `workspace.yaml`.
        home: Folder for FLOE_HOME, DAGSTER_HOME and the output.
    """

    def __init__(self, project: Path, home: Path) -> None:
        self.project = project
        self.output_file = home / "dagster-dev.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        dagster_home = home / "dagster"
        dagster_home.mkdir(parents=True)
        shutil.copy(ROOT / "deploy" / "local" / "dagster.yaml", dagster_home)
        environment = {
            **os.environ,
            "FLOE_HOME": str(home / "floe"),
            "DAGSTER_HOME": str(dagster_home),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
            "DO_NOT_TRACK": "1",
        }
        command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        with self.output_file.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=project,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """All that `dagster dev` printed."""
        return self.output_file.read_text(errors="replace")

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """Return the data that answers a query.

        Raises:
            AssertionError: The query is refused.
            OSError: The webserver does not answer.
        """
        request = urllib.request.Request(
            f"{self.url}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            answer = json.loads(error.read())
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def until(self, what: str, look: Callable[[], Found | None], seconds: float = 300) -> Found:
        """Look until there is something, and return it.

        Args:
            what: What is waited for, for the failure's message.
            look: Gives a false value until it is there; a webserver that is away counts as that.
            seconds: After which the wait fails, with the output of `dagster dev`.
        """
        deadline = time.monotonic() + seconds
        seen: object = None
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                self.fail(f"dagster dev ended with {self._process.returncode} before {what}")
            try:
                found = look()
            except OSError as error:
                seen = error
            else:
                if found:
                    return found
                seen = found
            time.sleep(POLL_SECONDS)
        self.fail(f"waited {seconds} s for {what}; last seen: {seen!r}")

    def fail(self, message: str) -> Any:
        """Fail with the output of `dagster dev`."""
        raise AssertionError(f"{message}\n--- output of dagster dev ---\n{self.output}")

    def runs(self, job: str) -> list[dict[str, Any]]:
        """Return id, status and tags of the runs of a job, newest first."""
        query = """query ($job: String!) { runsOrError(filter: {pipelineName: $job}) {
            ... on Runs { results { id status tags { key value } } } } }"""
        results: list[dict[str, Any]] = self.graphql(query, job=job)["runsOrError"].get("results", [])
        return results

    def error_of(self, run_id: str) -> str:
        """Return what the failed steps of a run say."""
        query = """query ($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
            ... on ExecutionStepFailureEvent { error { message } failureMetadata { description } } } } } }"""
        events = self.graphql(query, id=run_id)["logsForRun"]["events"]
        return "\n".join(json.dumps(event) for event in events if event)

    def descriptions(self) -> dict[str, str | None]:
        """Return the description of every asset that is served, by its key with slashes."""
        nodes = self.graphql("{ assetNodes { assetKey { path } description } }")["assetNodes"]
        return {"/".join(node["assetKey"]["path"]): node["description"] for node in nodes}

    def locations(self) -> dict[str, str]:
        """Return the load status of every code location by name."""
        query = """{ workspaceOrError { ... on Workspace { locationEntries {
            name loadStatus locationOrLoadError { __typename } } } } }"""
        entries = self.graphql(query)["workspaceOrError"]["locationEntries"]
        return {
            entry["name"]: (entry["locationOrLoadError"] or {}).get("__typename", entry["loadStatus"])
            for entry in entries
        }

    def stop(self) -> None:
        """End `dagster dev` and everything that it started, politely first."""
        self._process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        deadline = time.monotonic() + STOP_SECONDS
        while (members := _session(self._process.pid)) and time.monotonic() < deadline:
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_SECONDS)
        self._process.wait(STOP_SECONDS)


def _session(leader: int) -> set[int]:
    """Return the processes of a session: those that `dagster dev` leaves when it is killed."""
    members = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] != "Z":
                members.add(int(entry.name))
    return members
