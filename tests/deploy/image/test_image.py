"""What the image is: its user, labels, content, and what it must not hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from deploy.demo.image import project_version
from floe_dagster.compilation.bundle import Bundle
from floe_dagster.compilation.sources import source_state
from floe_dagster.home import FloeHome
from tests.deploy.image.conftest import PLANTED, PLANTED_TEXT, Built
from tests.deploy.image.container import USER, Pod

PRODUCTS = ("customer_360", "financial_risk", "iot_telemetry")


def test_who_runs_and_what_is_said_of_the_image(image: Built) -> None:
    assert image.config["User"] == f"{USER}:{USER}"
    assert "Entrypoint" not in image.config
    assert image.config["WorkingDir"] == "/app/demo"
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.version"] == project_version()
    assert labels["org.opencontainers.image.title"] == "floe-dagster-demo"
    assert labels["org.opencontainers.image.base.name"] == image.base
    for name in ("revision", "created", "licenses", "description"):
        assert labels[f"org.opencontainers.image.{name}"]


def test_nothing_of_the_work_tree_but_what_is_allowed(image: Built) -> None:
    application = {
        path.relative_to(image.root / "app").as_posix() for path in (image.root / "app").rglob("*")
    }
    assert {f"demo/{name}/definitions.py" for name in PRODUCTS} <= application
    assert "demo/macros/clean.sql" in application
    assert not any(
        name.startswith("demo/") and name.endswith(".py") and name.count("/") == 1 for name in application
    )
    names = {Path(name).name for name in PLANTED} - {"config", "environment"}
    found = [
        path
        for folder in ("app", "build", "src", "root", "var/lib/floe", "usr/local/lib", "tmp")
        for path in (image.root / folder).rglob("*")
        if path.name in names and path.is_file() and PLANTED_TEXT in path.read_text(errors="replace")
    ]
    assert found == []


def test_no_trace_of_how_it_was_built(image: Built) -> None:
    left = [
        path
        for folder in ("build", "tmp", "root/.cache", "root/.config", "run/secrets", "etc/pip.conf")
        for path in [image.root / folder, *(image.root / folder).rglob("*")]
        if path.is_file() and path.stat().st_size
    ]
    assert left == []
    for name in ("gcc", "cc", "make", "git"):
        assert not any((image.root / folder / name).exists() for folder in ("usr/bin", "usr/local/bin"))


def test_the_baked_state_is_the_one_of_any_other_checkout(image: Built, tmp_path: Path) -> None:
    for name in PRODUCTS:
        folder = image.root / "app" / "demo" / name
        manifest = image.root / "app" / "manifests" / "demo.yaml"
        digest = source_state(folder, manifest=manifest, home=FloeHome(tmp_path / "one")).digest
        there = source_state(
            image.context / "products" / name,
            manifest=image.context / "manifests" / "demo.yaml",
            home=FloeHome(tmp_path / "other"),
        ).digest
        assert Bundle.open(folder / "target" / "floe_state.zip").digest == digest == there


def test_the_root_cannot_be_written(pod: Callable[..., Pod]) -> None:
    pod = pod()
    for place in (
        "/",
        "/app/demo/customer_360/target",
        "/usr/local/lib",
        "/etc",
        "/dev",
        "/etc/floe/manifests",
    ):
        done = pod.run("touch", f"{place}/probe")
        assert done.returncode != 0 and "Read-only file system" in done.stderr, (place, done)
    done = pod.run(
        "sh",
        "-c",
        "touch /tmp/probe /var/lib/floe/probe && id -u && id -g && grep NoNewPrivs /proc/self/status",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == [str(USER), str(USER)] and done.stdout.split()[-1] == "1"
    assert (pod.home / "probe").stat().st_uid == USER


def test_the_image_checks_itself(pod: Callable[..., Pod]) -> None:
    done = pod().run("python", "/app/check_image.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "the image is sound: customer-360, iot-telemetry, financial-risk"


def test_packages_agree_and_are_compiled(image: Built, pod: Callable[..., Pod]) -> None:
    done = pod().run("python", "-m", "pip", "check")
    assert done.returncode == 0, done.stdout
    package = next((image.root / "usr" / "local" / "lib").glob("python3*/site-packages/floe_dagster"))
    # Nothing can write bytecode at run time: what is missing would be compiled by every process anew.
    sources = {path.stem for path in package.rglob("*.py")}
    compiled = {path.name.split(".")[0] for path in package.rglob("*.pyc")}
    assert sources == compiled
    assert os.access(package, os.R_OK)
