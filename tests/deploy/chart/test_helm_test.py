"""`helm test`: the pod's own script, asked of a real webserver."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.dagster_dev import DagsterDev
from tests.deploy.chart.rendering import CHART, RELEASE, VALUE_FILES, rendered

LOCATION = "import dagster as dg\n\ndefs = dg.Definitions(jobs=[dg.define_asset_job('all')])\n"
WORKSPACE = """\
load_from:
  - python_file: {relative_path: fine.py, location_name: customer-360}
  - python_file: {relative_path: broken.py, location_name: iot-telemetry}
"""


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    folder = tmp_path_factory.mktemp("locations")
    (folder / "fine.py").write_text(LOCATION)
    (folder / "broken.py").write_text("raise RuntimeError('broken')\n")
    (folder / "workspace.yaml").write_text(WORKSPACE)
    running = DagsterDev(folder, tmp_path_factory.mktemp("home"))
    try:
        running.until(
            "both locations",
            lambda: len(running.locations()) == 2 and None not in running.locations().values(),
        )
        yield running
    finally:
        running.stop()


@pytest.mark.parametrize("values", VALUE_FILES)
def test_the_documented_filter_chooses_this_test_among_all_charts_(values: str) -> None:
    tests = [
        pod["metadata"]["name"]
        for pod in rendered(values).of("Pod")
        if "test" in (pod["metadata"].get("annotations") or {}).get("helm.sh/hook", "")
    ]
    polaris = [] if values == "values.yaml" else [f"{RELEASE}-polaris-test-connection"]
    assert sorted(tests) == [*polaris, f"{RELEASE}-test"]
    install = (ROOT / "docs" / "operations.md").read_text().partition("### Install")[2].partition("### ")[0]
    texts = [install, (ROOT / "docs" / "kubernetes.md").read_text()]
    texts.append((CHART / "templates" / "NOTES.txt").read_text().replace("{{ .Release.Name }}", RELEASE))
    for text in texts:
        calls = re.findall(rf"helm [^`\n]*\btest {RELEASE}\b.*", text)
        assert calls and all(f"--filter name={RELEASE}-test --logs" in call for call in calls), calls


def command(address: str, *names: str) -> list[str]:
    """Return the pod's command, with another address and other names of locations."""
    pod = rendered("values.yaml").named("Pod", f"{RELEASE}-test")
    (container,) = pod["spec"]["containers"]
    python, flag, script, url, *locations = container["args"]
    assert (python, flag) == ("python", "-c")
    assert url == f"http://{RELEASE}-dagster-webserver:8080"
    assert locations == ["customer-360", "iot-telemetry", "financial-risk"]
    return [sys.executable, flag, script, address, *names]


def test_it_passes_where_every_location_is_served(dev: DagsterDev) -> None:
    done = subprocess.run(command(dev.url, "customer-360"), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "served: customer-360\n")


@pytest.mark.parametrize("name", ["iot-telemetry", "financial-risk"])
def test_it_names_a_location_that_is_broken_or_missing(dev: DagsterDev, name: str) -> None:
    done = subprocess.run(command(dev.url, "customer-360", name), capture_output=True, text=True)
    assert done.returncode == 1
    assert f"not served: {name};" in done.stderr


def test_it_fails_where_nobody_answers(tmp_path: Path) -> None:
    done = subprocess.run(command("http://127.0.0.1:9", "customer-360"), capture_output=True, text=True)
    assert done.returncode != 0
