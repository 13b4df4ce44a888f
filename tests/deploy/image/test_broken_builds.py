"""Builds that must fail, and say why."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

Rebuild = Callable[[Path], "subprocess.CompletedProcess[str]"]


def _break_model(root: Path) -> None:
    model = root / "products" / "customer_360" / "models" / "marts" / "mart_customer_360.sql"
    model.write_text(f"{model.read_text()}\n-- edited after it was compiled\n")


def _break_definitions(root: Path) -> None:
    (root / "products" / "iot_telemetry" / "definitions.py").write_text(
        "from floe_dagster import nothing_here\n"
    )


def _damage_state(root: Path) -> None:
    (root / "products" / "financial_risk" / "target" / "floe_state.zip").write_bytes(b"not a bundle")


BROKEN: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "a product edited after it was compiled": (
        _break_model,
        ("customer-360: the state in", "models/marts/mart_customer_360.sql (changed)", "make compile-demo"),
    ),
    "definitions that do not load": (
        _break_definitions,
        ("iot-telemetry: iot_telemetry.definitions does not load", "nothing_here", "definitions.py:1"),
    ),
    "a damaged state": (_damage_state, ("financial-risk:", "is not a readable bundle", "make compile-demo")),
    "a product that was never compiled": (
        lambda root: shutil.rmtree(root / "products" / "iot_telemetry" / "target"),
        ("iot-telemetry: nothing is compiled", "floe_state.zip", "make compile-demo"),
    ),
    "no macro folder": (
        lambda root: shutil.rmtree(root / "products" / "macros"),
        ("customer-360: dbt_project.yml names the folder /app/demo/macros, and the image has none",),
    ),
    "no platform manifest": (
        lambda root: (root / "manifests" / "demo.yaml").unlink(),
        ("FLOE_MANIFEST names /app/manifests/demo.yaml, which is not there", "holds: local.yaml"),
    ),
    "another platform manifest": (
        lambda root: shutil.copy(root / "manifests" / "local.yaml", root / "manifests" / "demo.yaml"),
        ("what differs: the platform manifest /app/manifests/demo.yaml", "make compile-demo"),
    ),
    "an image without one product": (
        lambda root: shutil.rmtree(root / "products" / "financial_risk"),
        (
            "financial-risk: workspace.yaml names the product, and the image has no folder /app/demo/financial_risk",
        ),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_not_built(name: str, changed: Path, rebuild: Rebuild) -> None:
    spoil, expected = BROKEN[name]
    spoil(changed)
    done = rebuild(changed)
    assert done.returncode != 0, done.stdout
    output = done.stdout + done.stderr
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    for text in expected:
        assert any(text in line for line in errors), (text, output[-3000:])
    assert "Traceback" not in output


def test_a_context_without_manifests_is_refused(changed: Path, rebuild: Rebuild) -> None:
    shutil.rmtree(changed / "manifests")
    done = rebuild(changed)
    assert done.returncode != 0 and "manifests" in done.stderr


def test_another_version_of_dagster_is_refused(changed: Path, rebuild: Rebuild) -> None:
    dockerfile = changed / "docker" / "dagster-demo" / "Dockerfile"
    dockerfile.write_text(
        re.sub(r"(?m)^ARG DAGSTER_VERSION=.*", "ARG DAGSTER_VERSION=1.0.0", dockerfile.read_text())
    )
    done = rebuild(changed)
    assert done.returncode != 0
    assert (
        f"dagster {version('dagster')} is installed, DAGSTER_VERSION says 1.0.0" in done.stdout + done.stderr
    )
