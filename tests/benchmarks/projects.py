"""Generated products: layers of models that read the layer before, described and tested."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

MANIFEST = """\
apiVersion: floe.dev/v1
kind: Manifest
metadata: {name: bench-platform, version: 1.0.0, owner: platform@example.com}
governance: {policy_enforcement_level: warn, pii_encryption: required, naming: {pattern: kimball}}
"""
SPEC = """\
apiVersion: floe.dev/v1
kind: FloeSpec
metadata: {{name: {name}, version: 1.0.0, owner: bench@example.com}}
platform: {{manifest: ../manifest.yaml}}
"""
PROFILE = """\
{slug}:
  target: floe
  outputs:
    floe: {{type: duckdb, path: '{path}', schema: main, threads: 4}}
"""
LAYER = 100
"""Models of one folder, with one YAML file."""


@dataclass(frozen=True, slots=True)
class Project:
    """A generated product.

    Args:
        folder: The product's folder.
        home: Its FLOE_HOME.
        profiles: Folder with a `profiles.yml` for plain dbt.
    """

    folder: Path
    home: Path
    profiles: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "FLOE_HOME": str(self.home),
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
            "DO_NOT_TRACK": "1",
        }

    def with_instance(self) -> dict[str, str]:
        """Make a Dagster instance of its own, with the settings of this repository; return the environment of its runs."""
        folder = self.home / "dagster"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "deploy" / "local" / "dagster.yaml", folder / "dagster.yaml")
        return {**self.environment, "DAGSTER_HOME": str(folder)}


def generate(root: Path, models: int, *, name: str = "bench", tests: int = 2) -> Project:
    """Write a product of `models` models with `tests` data tests each, in folders of 100."""
    root.mkdir(parents=True, exist_ok=True)
    slug = name.replace("-", "_")
    folder = root / slug
    (root / "workspace.yaml").write_text("load_from: []\n")
    (root / "manifest.yaml").write_text(MANIFEST)
    folder.mkdir(parents=True)
    (folder / "floe.yaml").write_text(SPEC.format(name=name))
    (folder / "dbt_project.yml").write_text(
        f"name: {slug}\nversion: 1.0.0\nprofile: {slug}\nmodels: {{+materialized: table}}\n"
    )
    for first in range(0, models, LAYER):
        layer = folder / "models" / f"layer_{first // LAYER:03}"
        layer.mkdir(parents=True)
        described = ["models:"]
        for number in range(first, min(first + LAYER, models)):
            (layer / f"{model(number)}.sql").write_text(_sql(number))
            described += [
                f"  - name: {model(number)}",
                f"    description: Generated model number {number}.",
                "    columns:",
                "      - name: id",
                "        description: Key.",
                f"        data_tests: [{', '.join(('unique', 'not_null')[:tests])}]",
                "      - {name: amount, description: A number.}",
                "      - {name: label, description: A text.}",
            ]
        (layer / "schema.yml").write_text("\n".join(described) + "\n")
    profiles = root / f"{slug}-profiles"
    profiles.mkdir()
    (profiles / "profiles.yml").write_text(PROFILE.format(slug=slug, path=profiles / "bench.duckdb"))
    return Project(folder, root / f"{slug}-home", profiles)


def model(number: int) -> str:
    """Return the name of a model."""
    return f"int_model_{number:05}"


def _sql(number: int) -> str:
    if number < LAYER:
        return f"select i as id, i * {number + 1} as amount, 'row ' || i as label from range(10) as rows(i)\n"
    left, right = number - LAYER, (number // LAYER - 1) * LAYER + (number * 7) % LAYER
    return (
        f"with left_side as (select * from {{{{ ref('{model(left)}') }}}}),\n"
        f"right_side as (select id, amount as other from {{{{ ref('{model(right)}') }}}})\n"
        "select left_side.id, left_side.amount + right_side.other as amount, left_side.label\n"
        "from left_side join right_side using (id)\n"
    )


def usage(
    command: list[str], environment: Mapping[str, str], cwd: Path | None = None
) -> tuple[float, resource.struct_rusage]:
    """Return the wall time of a whole process in seconds, and what it and its children used.

    Raises:
        RuntimeError: It failed; with the end of what it said.
    """
    with tempfile.TemporaryFile("w+") as output:
        begun = time.perf_counter()
        process = subprocess.Popen(command, env=dict(environment), cwd=cwd, stdout=output, stderr=output)
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        elapsed = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)}\n{output.read()[-6000:]}")
    return elapsed, used


def seconds(command: list[str], environment: Mapping[str, str], cwd: Path | None = None) -> float:
    """Return the wall time of a whole process.

    Raises:
        RuntimeError: It failed; with the end of what it said.
    """
    return usage(command, environment, cwd)[0]


def floe(*arguments: str) -> list[str]:
    """Return the command line of floe-dagster."""
    return [str(Path(sys.executable).with_name("floe-dagster")), *arguments]


def dbt(project: Project, *arguments: str, target: str = "dbt-target") -> list[str]:
    """Return the command line of plain dbt on a project."""
    return [
        str(Path(sys.executable).with_name("dbt")),
        *arguments,
        *("--project-dir", str(project.folder), "--profiles-dir", str(project.profiles)),
        *("--target-path", str(project.profiles / target), "--log-path", str(project.profiles / "logs")),
        "--quiet",
    ]
