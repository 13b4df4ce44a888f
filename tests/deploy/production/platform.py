"""What `deploy/production` says, read as Helm, Kubernetes and floe-dagster read it."""

from __future__ import annotations

import functools
from typing import Any

import yaml

from floe_dagster.compilation.inheritance import load_manifest_chain
from floe_dagster.schemas.manifest import PlatformManifest
from tests.conftest import ROOT
from tests.deploy.chart.rendering import Document, Rendered, render

FOLDER = ROOT / "deploy" / "production"
VALUES = FOLDER / "values.yaml"
MANIFEST = FOLDER / "manifest.yaml"


@functools.cache
def platform() -> Rendered:
    """Return what Helm makes of values and manifest together."""
    return render(str(VALUES), manifest=MANIFEST)


def values() -> dict[str, Any]:
    """Return the values as data."""
    loaded: dict[str, Any] = yaml.safe_load(VALUES.read_text())
    return loaded


def deployments() -> list[dict[str, Any]]:
    """Return the code locations of the values."""
    found: list[dict[str, Any]] = values()["dagster"]["dagster-user-deployments"]["deployments"]
    return found


def manifest() -> PlatformManifest:
    """Return the manifest; what is wrong with it fails the test."""
    chain = load_manifest_chain(MANIFEST, root=ROOT)
    assert chain.findings == [] and chain.merged is not None
    return chain.merged


def toolbox() -> Document:
    """Return the pod for work by hand."""
    loaded: Document = yaml.safe_load((FOLDER / "toolbox.yaml").read_text())
    return loaded
