"""Each code location starts in a pod and serves what was baked."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from floe_dagster.compilation.bundle import Bundle
from tests.deploy.image.conftest import Built
from tests.deploy.image.container import Pod
from tests.deploy.image.instance import write_instance
from tests.deploy.image.locations import served
from tests.deploy.image.test_image import PRODUCTS


@pytest.mark.parametrize("slug", PRODUCTS)
def test_a_location_serves_the_baked_state(slug: str, image: Built, pod: Callable[..., Pod]) -> None:
    baked = Bundle.open(image.root / "app" / "demo" / slug / "target" / "floe_state.zip")
    with served(pod(), slug) as location:
        assert location.repositories() == ["defs"]
        assert {f"{slug}_run", f"{slug}_compile"} <= location.jobs()
        cursor, tick = location.tick()
        # What it compares with is the digest of the state that it serves.
        assert tick.skip_message == "the state served fits the sources"
        assert cursor["digest"] == baked.digest


def test_an_edited_manifest_is_seen_and_compiled(image: Built, pod: Callable[..., Pod]) -> None:
    pod = pod()
    instance = write_instance(pod)
    slug = "customer_360"
    with served(pod, slug) as location:
        first, _tick = location.tick()
        manifest = (image.context / "manifests" / "demo.yaml").read_text()
        pod.write_manifest(manifest.replace("data_retention_days: 1", "data_retention_days: 30"))
        second, tick = location.tick(json.dumps(first))
        assert second["digest"] != first["digest"]
        (request,) = tick.run_requests or ()
        assert request.run_key == f"2-{second['digest']}"
        assert location.launch(pod, f"{slug}_compile") == "SUCCESS"
        # Compiled, stored and served: the next look finds nothing to do.
        _third, tick = location.tick(json.dumps({"seq": 0, "digest": None}))
        assert tick.skip_message == "the state served fits the sources"
        pod.write_manifest(manifest)
        assert location.tick(json.dumps(second))[0]["digest"] == first["digest"]
    compiled = Bundle.open(pod.home / "state" / slug / f"{second['digest'].removeprefix('sha256:')}.zip")
    governance = compiled.artifact().governance
    assert governance is not None and governance.data_retention_days == 30
    assert second["digest"].removeprefix("sha256:") in {path.name for path in (instance / "state").rglob("*")}


def test_a_product_without_state_loads_and_says_what_to_do(image: Built, pod: Callable[..., Pod]) -> None:
    pod = pod()
    code = "import shutil; shutil.copytree('/app/demo', '/tmp/demo', ignore=shutil.ignore_patterns('target'))"
    assert pod.python(code).returncode == 0
    done = pod.run(
        *("sh", "-c", 'cd /tmp/demo && exec python -c "$1"', "sh"),
        "from customer_360.definitions import defs; print(sorted(j.name for j in defs.get_repository_def().get_all_jobs()))",
    )
    assert done.returncode == 0, done.stderr
    assert "customer_360_compile" in done.stdout and "customer_360_run" not in done.stdout
    assert "customer_360 has no compiled state yet" in done.stderr
