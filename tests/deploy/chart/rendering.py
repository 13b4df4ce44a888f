"""The chart, rendered by the real Helm with stand-ins for the official charts."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT
from tests.deploy.tools import go_tool

CHART = ROOT / "deploy" / "floe-platform"
STAND_INS = Path(__file__).parent / "stand_ins"
MANIFEST = ROOT / "manifests" / "demo.yaml"
HELM = ("helm.sh/helm/v3/cmd/helm", "v3.22.0")
KUBERNETES = "1.33.0"
"""What Helm takes for the cluster's version; built from its module, it would say 1.20."""
RELEASE, NAMESPACE = "floe-platform", "floe"
NEEDED = {"networkPolicy": {"kubernetesApi": {"cidrs": ["192.0.2.1/32"]}}}
"""What values.yaml leaves to each cluster."""
VALUE_FILES = ("values.yaml", "values-test.yaml", "values-demo.yaml")
WORKLOADS = ("Deployment", "StatefulSet", "Job", "Pod")

Document = dict[str, Any]


@functools.cache
def helm() -> Path:
    """Return Helm; the first call of a machine builds it, which takes two minutes."""
    return go_tool(*HELM)


@functools.cache
def chart_folder() -> Path:
    """Return a copy of the chart with the stand-ins where Helm puts the official charts."""
    temporary = tempfile.mkdtemp(prefix="chart-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    folder = Path(temporary) / CHART.name
    shutil.copytree(CHART, folder, ignore=shutil.ignore_patterns("charts", "Chart.lock"))
    shutil.copytree(STAND_INS, folder / "charts", ignore=shutil.ignore_patterns("README.md"))
    return folder


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm without a cluster, and without anything of this user's."""
    home = str(chart_folder().parent)
    environment = {"PATH": os.environ["PATH"], "HOME": home, "KUBECONFIG": os.devnull}
    return subprocess.run([str(helm()), *arguments], capture_output=True, text=True, env=environment)


@dataclass(frozen=True)
class Rendered:
    """What Helm would send to a cluster.

    Args:
        documents: In the order in which Helm prints them.
    """

    documents: tuple[Document, ...]

    def of(self, *kinds: str) -> list[Document]:
        """Return the documents of some kinds."""
        return [document for document in self.documents if document["kind"] in kinds]

    def named(self, kind: str, name: str) -> Document:
        """Return one document."""
        (found,) = [document for document in self.of(kind) if document["metadata"]["name"] == name]
        return found

    def pods(self) -> Iterator[tuple[str, Document]]:
        """Yield kind/name and the pod (metadata, spec) of each workload."""
        for document in self.of(*WORKLOADS):
            pod = document if document["kind"] == "Pod" else document["spec"]["template"]
            yield f"{document['kind']}/{document['metadata']['name']}", pod

    def pod(self, name: str) -> Document:
        """Return the pod of one workload, by kind/name."""
        return dict(self.pods())[name]


@functools.cache
def needed() -> tuple[str, str]:
    """Return arguments with what values.yaml leaves to each cluster."""
    file = chart_folder().parent / "needed.json"
    file.write_text(json.dumps(NEEDED))
    return ("--values", str(file))


def template(
    values: str = "values.yaml",
    *,
    changes: Mapping[str, Any] | None = None,
    manifest: Path | None = MANIFEST,
    extra: Sequence[str] = (),
    release: str = RELEASE,
) -> subprocess.CompletedProcess[str]:
    """Run `helm template`.

    Args:
        values: One of the chart's value files.
        changes: Values that come last, nested as in a value file.
        manifest: The platform's manifest, as `--set-file` gives it.
        extra: More arguments.
        release: Name of the release.
    """
    arguments = ["template", release, str(chart_folder()), "--namespace", NAMESPACE]
    arguments += ["--kube-version", KUBERNETES]
    arguments += ["--values", str(chart_folder() / values)]
    if manifest is not None:
        arguments += ["--set-file", f"manifest={manifest}"]
    if values == "values.yaml":
        arguments += needed()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(dict(changes or {}), file)
        file.flush()
        return run_helm(*arguments, "--values", file.name, *extra)


def render(values: str = "values.yaml", **options: Any) -> Rendered:
    """Render the chart; see `template`. What Helm refuses fails the test."""
    done = template(values, **options)
    assert done.returncode == 0, done.stderr
    return Rendered(tuple(document for document in yaml.safe_load_all(done.stdout) if document))


@functools.cache
def rendered(values: str) -> Rendered:
    """Render one of the chart's value files, once."""
    return render(values)


def value_file(name: str) -> dict[str, Any]:
    """Return one of the chart's value files as data."""
    loaded: dict[str, Any] = yaml.safe_load((CHART / name).read_text())
    return loaded


def chart_metadata() -> dict[str, Any]:
    """Return Chart.yaml as data."""
    loaded: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())
    return loaded
