"""A product runs in a pod, to the embedded catalog, and everything that is written lies in the volume."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import duckdb
import yaml

from tests.conftest import ROOT
from tests.deploy.image.conftest import Built
from tests.deploy.image.container import USER, Pod
from tests.deploy.image.instance import write_instance
from tests.deploy.image.locations import served

SLUG = "customer_360"
EMBEDDED = {"FLOE_MANIFEST": "/app/manifests/local.yaml"}


def test_a_product_runs_to_the_embedded_catalog(image: Built, pod: Callable[..., Pod]) -> None:
    pod = pod(**EMBEDDED)
    write_instance(pod)
    with served(pod, SLUG) as location:
        # What is baked is for another platform; the compilation reloads the server, which then serves the new state.
        assert location.launch(pod, f"{SLUG}_compile") == "SUCCESS"
        assert location.launch(pod, f"{SLUG}_run") == "SUCCESS"
    assert _published(pod) == _computed(pod) != {}
    # The DuckDB file lies in a folder that nobody made beforehand.
    assert (pod.home / "duckdb" / f"{SLUG}.duckdb").stat().st_uid == USER
    owners = {path.lstat().st_uid for folder in ("home", "tmp") for path in (pod.volume / folder).rglob("*")}
    assert owners == {USER}
    assert not (image.root / "app" / "demo" / SLUG / "target" / "run_results.json").exists()


def test_the_command_line_runs_a_product_in_the_image(pod: Callable[..., Pod]) -> None:
    pod = pod(**EMBEDDED)
    done = pod.run("floe-dagster", "run", f"/app/demo/{SLUG}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert _published(pod) == _computed(pod) != {}


def test_a_volume_that_cannot_be_written_is_named(pod: Callable[..., Pod]) -> None:
    pod = pod(**EMBEDDED)
    os.chown(pod.home, 0, 0)
    pod.home.chmod(0o755)
    done = pod.run("floe-dagster", "run", f"/app/demo/{SLUG}")
    assert done.returncode == 2
    assert "FLOE_HOME is /var/lib/floe; it has to be a folder that can be written" in done.stderr
    assert "Traceback" not in done.stderr


READ = f"""
import json
from pathlib import Path
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
catalog = open_catalog(None, None, home=FloeHome(Path("/var/lib/floe")))
tables = {{name[-1]: catalog.load_table(name).scan().to_arrow().num_rows for name in catalog.list_tables("{SLUG}")}}
print(json.dumps(tables))
"""


def _published(pod: Pod) -> dict[str, int]:
    """Return the rows of each published table, read by PyIceberg: a table's location is a path of the pod."""
    done = pod.python(READ)
    assert done.returncode == 0, done.stderr
    rows: dict[str, int] = json.loads(done.stdout)
    return rows


def _computed(pod: Pod) -> dict[str, int]:
    """Return the rows that dbt left in DuckDB for each model that floe.yaml names."""
    spec = yaml.safe_load((ROOT / "products" / SLUG / "floe.yaml").read_text())
    with duckdb.connect(str(pod.home / "duckdb" / f"{SLUG}.duckdb"), read_only=True) as con:
        return {
            name: con.sql(f'select count(*) from main."{name}"').fetchall()[0][0]
            for name in (transform["name"] for transform in spec["transforms"])
        }
