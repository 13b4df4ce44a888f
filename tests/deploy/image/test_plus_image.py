"""The image for Dagster+: that of the demo, and a code location as an agent starts it."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from deploy.demo.image import DOCKERFILE
from tests.conftest import ROOT
from tests.deploy.image.conftest import Built
from tests.deploy.image.container import USER, Pod
from tests.deploy.image.locations import served


@pytest.fixture
def pod(plus: Built, tmp_path: Path) -> Pod:
    manifest = (plus.context / "manifests" / "demo.yaml").read_text()
    return Pod(plus.root, plus.config, tmp_path, manifest, {"FLOE_MANIFEST": "/app/manifests/demo.yaml"})


def test_it_is_the_demo_s_image_but_for_its_title(plus: Built, image: Built) -> None:
    assert plus.config["User"] == f"{USER}:{USER}" and "Entrypoint" not in plus.config
    title = "org.opencontainers.image.title"
    labels, theirs = dict(plus.config["Labels"]), dict(image.config["Labels"])
    assert labels.pop(title) == "floe-dagster-plus" and theirs.pop(title) == "floe-dagster-demo"
    assert theirs.items() <= labels.items()
    for key in ("Env", "WorkingDir"):
        assert plus.config[key] == image.config[key]


def test_its_packages_are_the_lock_and_agree(pod: Pod) -> None:
    assert pod.run("python", "-m", "pip", "check").returncode == 0
    done = pod.run("python", "-m", "pip", "list", "--format", "json", "--disable-pip-version-check")
    assert done.returncode == 0, done.stderr
    installed = {
        re.sub(r"[._-]+", "-", entry["name"].lower()): entry["version"] for entry in json.loads(done.stdout)
    }
    locked = re.findall(r"(?m)^([a-z0-9._-]+)==([^ ;\\]+)(.*)$", (ROOT / "requirements-plus.txt").read_text())
    # A package that is locked for some Pythons alone may be absent, or be there in another version.
    plain = {name: found for name, found, rest in locked if ";" not in rest}
    assert len(plain) > 100
    assert {name: installed.get(name) for name in plain} == plain
    assert installed["dagster-cloud"] == installed["dagster"] == version("dagster")


def test_it_checks_itself(pod: Pod) -> None:
    done = pod.run("python", "/app/check_image.py")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["customer-360", "iot-telemetry", "financial-risk"])
def test_a_location_of_dagster_cloud_yaml_is_served(name: str, pod: Pod) -> None:
    document = yaml.safe_load((ROOT / "dagster_cloud.yaml").read_text())
    (location,) = [entry for entry in document["locations"] if entry["location_name"] == name]
    slug = name.replace("-", "_")
    # What `served` starts is what the file says.
    assert location["code_source"] == {"module_name": f"{slug}.definitions"}
    assert document["defaults"]["working_directory"] == "/app/demo"
    with served(pod, slug) as answer:
        assert {f"{slug}_run", f"{slug}_compile"} <= answer.jobs()


def test_the_agent_s_instance_can_be_loaded(pod: Pod) -> None:
    """An agent gives its pods an instance of a class that only this image has."""
    done = pod.python(
        "from dagster_cloud.instance import DagsterCloudAgentInstance; print(DagsterCloudAgentInstance.__name__)"
    )
    assert done.returncode == 0 and done.stdout.strip() == "DagsterCloudAgentInstance", done.stderr


def test_the_serverless_image_is_made_of_the_same_parts(plus: Built, image: Built) -> None:
    """Its base cannot be had without a registry, so it is not built; what it copies and sets is compared."""
    text = (ROOT / "docker" / "dagster-plus" / "serverless.Dockerfile").read_text()
    demo = (ROOT / DOCKERFILE).read_text()
    for line in ("COPY manifests/ /app/manifests/", "COPY products/ /app/demo/", "WORKDIR /app/demo"):
        assert line in text.splitlines() and line in demo.splitlines()
    assert "--requirement /build/requirements.txt" in text and "source=requirements-plus.txt" in text
    variables = dict(re.findall(r"(?m)^(?:ENV|   ) (\w+)=([^\s\\]+)", text))
    given = dict(entry.split("=", 1) for entry in image.config["Env"])
    assert {k: v for k, v in variables.items() if given.get(k) != v} == {"FLOE_HOME": "/tmp/floe"}
