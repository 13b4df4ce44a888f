"""Which dbt a run starts: this environment's own, imported ahead by who executes the step, or the one that somebody has set."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.compilation.dbt_server import own_dbt
from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.definitions.resources import DbtResource
from floe_dagster.execution import dbt_process
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from tests.conftest import MANIFEST
from tests.jobs import execute_job

SPEC = """\
apiVersion: floe.dev/v1
kind: FloeSpec
metadata: {name: shop, version: 1.0.0, owner: shop@example.com}
platform: {manifest: ../manifest.yaml}
"""


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    files = {
        "workspace.yaml": "load_from: []\n",
        "manifest.yaml": MANIFEST,
        "shop/floe.yaml": SPEC,
        "shop/dbt_project.yml": "name: shop\nversion: 1.0.0\nprofile: shop\nmodels: {+materialized: table}\n",
        "shop/models/orders.sql": "select 1 as id\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root / "shop"


@pytest.fixture(scope="module")
def bundle(product: Path) -> Bundle:
    result = compile_product(product, home=FloeHome(product.parent / "compiled"))
    assert result.bundle is not None, result.findings
    return result.bundle


@pytest.fixture
def warmed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each time that dbt is imported ahead."""
    calls: list[int] = []
    monkeypatch.setattr(dbt_process.server, "warm", lambda: calls.append(os.getpid()))
    return calls


def definitions(bundle: Bundle, product: Path, home: FloeHome, dbt: Any = None) -> dg.Definitions:
    made = build_product_definitions(bundle, product_dir=product, home=home)
    if dbt is None:
        return made
    return dg.Definitions(
        assets=made.assets, jobs=made.jobs, resources={**(made.resources or {}), "shop_dbt": dbt}
    )


def run(made: dg.Definitions, job: str) -> Any:
    return made.resolve_job_def(job).execute_in_process(raise_on_error=False)


def somebodys_dbt(folder: Path) -> Path:
    """Return a dbt that notes its arguments, as one of another environment or behind a script of the platform's is."""
    program = folder / "their dbt"
    program.write_text(f'#!/bin/sh\necho "$@" >> "{folder}/asked"\nexec "{own_dbt()}" "$@"\n')
    program.chmod(0o755)
    return program


def as_ours(program: Path, _product: Path) -> Any:
    return DbtResource(dbt_executable=str(program), global_config_flags=["--no-static-parser"])


def as_dagster_dbts(program: Path, product: Path) -> Any:
    from dagster_dbt import DbtCliResource

    return DbtCliResource(
        project_dir=str(product), dbt_executable=str(program), global_config_flags=["--no-static-parser"]
    )


@pytest.mark.parametrize("resource", [as_ours, as_dagster_dbts])
def test_somebodys_own_dbt_builds_what_is_published(
    resource: Callable[[Path, Path], Any], bundle: Bundle, product: Path, tmp_path: Path, warmed: list[int]
) -> None:
    home = FloeHome(tmp_path / "home")
    made = definitions(bundle, product, home, resource(somebodys_dbt(tmp_path), product))
    assert run(made, "shop_run").success
    assert open_catalog(None, None, home=home).load_table("shop.orders").scan().to_arrow().num_rows == 1
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    # One command and no other; the flags stand before it.
    flags, build, _ = asked.partition(" build ")
    assert build and "--no-static-parser" in flags
    # Our dbt is for nobody then.
    assert warmed == []


@pytest.mark.parametrize("fault", ["missing", "not executable", "no dbt"])
def test_a_dbt_that_is_none_is_told(
    fault: str, bundle: Bundle, product: Path, tmp_path: Path, warmed: list[int]
) -> None:
    program = tmp_path / "their dbt"
    if fault != "missing":
        program.write_text("#!/bin/sh\necho I am no dbt\nexit 3\n")
        program.chmod(0o755 if fault == "no dbt" else 0o644)
    home = FloeHome(tmp_path / "home")
    outcome = run(definitions(bundle, product, home, as_ours(program, product)), "shop_run")
    assert not outcome.success
    (failure,) = outcome.filter_events(lambda event: event.is_step_failure or event.is_step_up_for_retry)
    said = f"{failure.event_specific_data.error} {failure.event_specific_data.user_failure_data}"
    assert str(program) in said and "Traceback" not in str(failure.event_specific_data.user_failure_data)


def test_dbt_is_imported_ahead_where_a_step_needs_it_alone(
    bundle: Bundle, product: Path, tmp_path: Path, warmed: list[int]
) -> None:
    made = definitions(bundle, product, FloeHome(tmp_path / "home"))
    dg.Definitions.validate_loadable(made)
    assert warmed == []
    assert run(made, "shop_maintenance").success
    assert warmed == []
    assert run(made, "shop_run").success
    assert warmed


@dg.op(required_resource_keys={"dbt"})
def needs_dbt(context: dg.OpExecutionContext) -> None:
    context.log.info("here")


@dg.op
def needs_nothing(context: dg.OpExecutionContext) -> None:
    context.log.info("here")


class Telling(DbtResource):
    """Notes in which process it is made ready."""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        with open(self.dbt_executable, "a") as file:
            file.write(f"{os.getpid()}\n")


def two_steps() -> dg.JobDefinition:
    @dg.job(resource_defs={"dbt": Telling(dbt_executable=os.environ["TOLD"])})
    def steps() -> None:
        needs_dbt()
        needs_nothing()

    return steps


@pytest.mark.slow
def test_dagster_makes_a_resource_ready_in_the_process_of_its_step_alone(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    # Its results open the resources once more where they are entered, for who loads outputs.
    outcome = execute_job(dg.reconstructable(two_steps), instance=instance)
    assert outcome.success
    started = {event.step_key: event.pid for event in outcome.all_events if event.is_step_start}
    assert len({*started.values(), os.getpid()}) == 3
    assert (tmp_path / "told").read_text().split() == [str(started["needs_dbt"])]
