"""The official charts are fetched again and again, into a folder that has an older lock."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from deploy.demo.cluster import commands
from deploy.demo.engines import ENGINES
from tests.deploy.chart.rendering import run_helm


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing of what is asked."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    """A repository of charts with two versions of one; yields its address."""
    folder, chart = tmp_path / "repository", tmp_path / "official"
    folder.mkdir()
    (chart / "templates").mkdir(parents=True)
    for version in ("1.0.0", "1.1.0"):
        (chart / "Chart.yaml").write_text(
            yaml.safe_dump({"apiVersion": "v2", "name": "official", "version": version})
        )
        assert run_helm("package", str(chart), "--destination", str(folder)).returncode == 0
    assert run_helm("repo", "index", str(folder)).returncode == 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_demo_fetches_charts_as_often_as_it_is_made(repository: str, tmp_path: Path) -> None:
    root = tmp_path / "project"
    chart = root / "deploy" / "floe-platform"
    chart.mkdir(parents=True)
    made = commands(ENGINES[0], "image", archive=tmp_path / "archive", exists=True, root=root)
    (fetch,) = [command for command in made if command[:2] == ["helm", "dependency"]]
    for version in ("1.0.0", "1.0.0", "1.1.0"):
        dependency = {"name": "official", "version": version, "repository": repository}
        document = {"apiVersion": "v2", "name": "ours", "version": "0.1.0", "dependencies": [dependency]}
        (chart / "Chart.yaml").write_text(yaml.safe_dump(document))
        done = run_helm(*fetch[1:])
        assert done.returncode == 0, done.stderr
        assert [path.name for path in (chart / "charts").iterdir()] == [f"official-{version}.tgz"]


def test_build_would_refuse_the_second_time(repository: str, tmp_path: Path) -> None:
    """The reason for `update`; where this fails one day, `build` will do again."""
    dependency = {"name": "official", "version": "1.0.0", "repository": repository}
    document = {"apiVersion": "v2", "name": "ours", "version": "0.1.0", "dependencies": [dependency]}
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "Chart.yaml").write_text(yaml.safe_dump(document))
    outcomes = [run_helm("dependency", "build", str(tmp_path / "ours")).returncode == 0 for _ in range(2)]
    assert outcomes == [True, False]
