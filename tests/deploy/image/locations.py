"""A code server in a pod, asked over gRPC."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import ListRepositoriesResponse, SensorExecutionArgs
from dagster._serdes import deserialize_value

from deploy.services.programs import free_port
from tests.deploy.image.container import RUN_SECONDS, Pod

START_SECONDS = 120
REPOSITORY = "__repository__"
WAIT_FOR_RUN = """
import sys, time
from dagster import DagsterInstance
with DagsterInstance.get() as instance:
    deadline = time.monotonic() + float(sys.argv[2])
    while not instance.get_run_by_id(sys.argv[1]).is_finished and time.monotonic() < deadline:
        time.sleep(0.5)
    print(instance.get_run_by_id(sys.argv[1]).status.value)
"""


class Location:
    """A code location as webserver and daemon see it.

    Args:
        slug: Of the product.
        port: Of its server.
    """

    def __init__(self, slug: str, port: int) -> None:
        self.slug = slug
        self.port = port
        self.client = DagsterGrpcClient(host="127.0.0.1", port=port)

    def repositories(self) -> list[str]:
        """Return the names of the repositories that the server has loaded; raises what it failed with."""
        answer = deserialize_value(self.client.list_repositories())
        if not isinstance(answer, ListRepositoriesResponse):
            raise AssertionError(answer)
        return [symbol.attribute for symbol in answer.repository_symbols]

    def jobs(self) -> set[str]:
        """Return the names of the jobs of the location."""
        snap = deserialize_value(self.client.external_repository(self._origin()), RepositorySnap)
        return {job.name for job in snap.get_job_datas()}

    def tick(self, cursor: str | None = None) -> tuple[dict[str, Any], SensorExecutionData]:
        """Evaluate the sensor of the sources, as the daemon would; returns its new cursor and all it said."""
        arguments = SensorExecutionArgs(
            repository_origin=self._origin(),
            instance_ref=None,
            sensor_name=f"{self.slug}_sources",
            cursor=cursor,
        )
        answer = deserialize_value(self.client.external_sensor_execution(arguments))
        if not isinstance(answer, SensorExecutionData):
            raise AssertionError(answer)
        return json.loads(answer.cursor or "{}"), answer

    def launch(self, pod: Pod, job: str) -> str:
        """Launch a job as webserver and daemon do, and wait for its end; returns the status of the run."""
        run = str(uuid.uuid4())
        address = ("--grpc-host", "127.0.0.1", "--grpc-port", str(self.port))
        done = pod.run("dagster", "job", "launch", *address, "--job", job, "--run-id", run)
        if done.returncode:
            raise AssertionError(done.stderr[-4000:])
        ended = pod.run("python", "-c", WAIT_FOR_RUN, run, str(RUN_SECONDS - 30))
        if ended.returncode:
            raise AssertionError(ended.stderr[-4000:])
        return ended.stdout.strip()

    def _origin(self) -> RemoteRepositoryOrigin:
        origin = GrpcServerCodeLocationOrigin(host="127.0.0.1", port=self.port, location_name=self.slug)
        return RemoteRepositoryOrigin(code_location_origin=origin, repository_name=REPOSITORY)


@contextmanager
def served(pod: Pod, slug: str) -> Iterator[Location]:
    """Start the server as the chart does; yields the location when it answers."""
    port = free_port()
    command = ["dagster", "code-server", "start", "-h", "127.0.0.1", "-p", str(port)]
    with pod.running(*command, "-m", f"{slug}.definitions", "-d", "/app/demo") as output:
        location = Location(slug, port)
        _wait(location, output)
        yield location


def _wait(location: Location, output: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            location.client.ping("")
            return
        except DagsterUserCodeUnreachableError:
            if time.monotonic() > deadline:
                raise AssertionError(output.read_text(errors="replace")[-4000:]) from None
            time.sleep(0.5)
