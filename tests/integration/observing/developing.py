"""`dagster dev` on observed products: how runs are asked for, and what is waited for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import tests.dagster_dev
from tests.conftest import ROOT
from tests.dagster_dev import DagsterDev

LAUNCH = """mutation ($job: String!, $location: String!, $assets: [AssetKeyInput!], $config: RunConfigData,
        $tags: [ExecutionTag!]) {
    launchRun(executionParams: {runConfigData: $config, executionMetadata: {tags: $tags},
        selector: {jobName: $job, assetSelection: $assets,
        repositoryName: "__repository__", repositoryLocationName: $location}}) {
        __typename ... on LaunchRunSuccess { run { id } } ... on PythonError { message } } }"""
STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status tags { key value } } } }"
TERMINATE = "mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"
HELD = {"test/held": "yes"}
"""Tags of a run that the queue lets nobody begin."""
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}


def start(project: Path, home: Path, patch: pytest.MonkeyPatch, **monitoring: Any) -> DagsterDev:
    """Start `dagster dev`.

    Args:
        project: Folder with `workspace.yaml`.
        home: For FLOE_HOME, DAGSTER_HOME and the output.
        patch: Gives the instance its settings while it starts.
        monitoring: Settings of `run_monitoring`.
    """
    local = home / "root" / "deploy" / "local"
    local.mkdir(parents=True)
    settings = yaml.safe_load((ROOT / "deploy" / "local" / "dagster.yaml").read_text())
    settings["run_monitoring"] |= monitoring
    limits = [{"key": key, "value": value, "limit": 0} for key, value in HELD.items()]
    settings["concurrency"]["runs"] = {"tag_concurrency_limits": limits}
    (local / "dagster.yaml").write_text(yaml.safe_dump(settings))
    with patch.context() as while_it_starts:
        while_it_starts.setattr(tests.dagster_dev, "ROOT", home / "root")
        return DagsterDev(project, home)


def loaded(dev: DagsterDev, *locations: str) -> None:
    """Wait until the code locations are served."""
    wanted = dict.fromkeys(locations, "RepositoryLocation")
    dev.until("the code locations", lambda: dev.locations() == wanted)


def launch(
    dev: DagsterDev,
    location: str,
    job: str,
    assets: list[str] | None = None,
    tags: Mapping[str, str] | None = None,
    **config: Any,
) -> str:
    """Ask for a run and return its id.

    Args:
        dev: Where.
        location: Of the job.
        job: Its name.
        assets: Keys with slashes; all of the job when None.
        tags: Of the run.
        config: Run config.
    """
    keys = None if assets is None else [{"path": key.split("/")} for key in assets]
    named = [{"key": key, "value": value} for key, value in (tags or {}).items()]
    variables = {"job": job, "location": location, "assets": keys, "config": config, "tags": named}
    answer = dev.graphql(LAUNCH, **variables)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    run_id: str = answer["run"]["id"]
    return run_id


def status(dev: DagsterDev, run_id: str) -> str:
    """Return the status of a run."""
    return str(dev.graphql(STATUS, id=run_id)["runOrError"]["status"])


def tags(dev: DagsterDev, run_id: str) -> Mapping[str, str]:
    """Return the tags of a run."""
    return {tag["key"]: tag["value"] for tag in dev.graphql(STATUS, id=run_id)["runOrError"]["tags"]}


def ended(dev: DagsterDev, run_id: str, seconds: float = 120) -> str:
    """Wait until a run has ended and return its status."""

    def look() -> str | None:
        found = status(dev, run_id)
        return found if found in ENDED else None

    return dev.until(f"the end of {run_id}", look, seconds)


def until(dev: DagsterDev, what: str, look: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for something, with the output of `dagster dev` where it does not come; assertions count as not yet."""

    def patient() -> Any:
        try:
            return look()
        except AssertionError as error:
            last.append(error)
            return None

    last: list[AssertionError] = []
    try:
        return dev.until(what, patient, seconds)
    except AssertionError as error:
        raise AssertionError(f"{last[-1] if last else ''}\n{error}") from None


def copy_products(
    folder: Path, names: list[str], observability: Mapping[str, Any], interval: int = 2
) -> None:
    """Copy shipped products into a project whose local platform tells receivers.

    Args:
        folder: Of the project.
        names: Of the products' folders.
        observability: Of the manifest.
        interval: Seconds between two looks of the sensors.
    """
    ignored = shutil.ignore_patterns("target", "__pycache__")
    shutil.copytree(ROOT / "manifests", folder / "manifests")
    shutil.copy(ROOT / "workspace.yaml", folder)
    for name in ("macros", *names):
        shutil.copytree(ROOT / "products" / name, folder / "products" / name, ignore=ignored)
    for name in names:
        definitions = folder / "products" / name / "definitions.py"
        text = definitions.read_text()
        definitions.write_text(text.replace("(__file__", f"(__file__, sensor_interval_seconds={interval}"))
    manifest = folder / "manifests" / "local.yaml"
    document = yaml.safe_load(manifest.read_text())
    document["observability"] = dict(observability)
    manifest.write_text(yaml.safe_dump(document, sort_keys=False))
