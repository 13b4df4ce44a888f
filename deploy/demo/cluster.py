"""The demo in a local Kubernetes cluster: kind, the image, the chart."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from deploy.demo.engines import DemoError, Engine
from deploy.demo.image import MANIFEST, ROOT

CLUSTER = "floe"
RELEASE = "floe-platform"
NAMESPACE = "floe"
CHART = Path("deploy/floe-platform")
TIMEOUT = "15m"
TOOLS = {
    "kind": "makes a cluster on this machine: https://kind.sigs.k8s.io/docs/user/quick-start",
    "kubectl": "talks to it: https://kubernetes.io/docs/tasks/tools",
    "helm": "installs the chart: https://helm.sh/docs/intro/install",
}


def missing(root: Path = ROOT) -> list[str]:
    """Return what the demo lacks on this machine, one line each."""
    lines = [f"{tool} is not installed; it {use}" for tool, use in TOOLS.items() if not shutil.which(tool)]
    for file in ("Chart.yaml", "values-demo.yaml"):
        if not (root / CHART / file).is_file():
            lines.append(f"{CHART / file} is not there; the checkout is incomplete")
    return lines


def install(engine: Engine, image: str, *, archive: Path, root: Path = ROOT) -> None:
    """Make the cluster where there is none, bring the image into it, and install or upgrade the release.

    Args:
        engine: Holds the image.
        image: Name and tag, as values-demo.yaml has them.
        archive: File that the image may pass through.
        root: The repository's root.

    Raises:
        DemoError: A step fails; its output is on the terminal.
    """
    clusters = subprocess.run(["kind", "get", "clusters"], capture_output=True, text=True).stdout.split()
    for command in commands(engine, image, archive=archive, exists=CLUSTER in clusters, root=root):
        print("+ " + " ".join(command), flush=True)
        if subprocess.run(command, cwd=root).returncode:
            raise DemoError(f"this command failed: {' '.join(command)}")


def commands(
    engine: Engine, image: str, *, archive: Path, exists: bool, root: Path = ROOT
) -> list[list[str]]:
    """Return the commands of `install`, in order.

    Args:
        engine: Holds the image.
        image: Name and tag, as values-demo.yaml has them.
        archive: File that the image may pass through.
        exists: Whether the cluster is there already.
        root: The repository's root.
    """
    chart = str(root / CHART)
    context = f"kind-{CLUSTER}"
    create = [] if exists else [["kind", "create", "cluster", "--name", CLUSTER, "--wait", "120s"]]
    return [
        *create,
        engine.archive_command(image, archive),
        ["kind", "load", "image-archive", str(archive), "--name", CLUSTER],
        # Not `build`, which refuses a second time: it holds to the lock that the first one wrote.
        ["helm", "dependency", "update", chart],
        [
            *("helm", "upgrade", "--install", RELEASE, chart, "--kube-context", context),
            *("--namespace", NAMESPACE, "--create-namespace", "--values", f"{chart}/values-demo.yaml"),
            *("--set-file", f"manifest={root / MANIFEST}"),
            *("--wait", "--wait-for-jobs", "--timeout", TIMEOUT),
        ],
    ]
