"""The job of a product as another process gets it: from a function of a module, and where the product lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext

from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.home import FloeHome


def shop_job(product: str, home: str) -> Any:
    """Compile a product, and return its job."""
    folder, writable = Path(product), FloeHome(Path(home))
    result = compile_product(folder, home=writable)
    assert result.bundle is not None, result.findings
    return build_product_definitions(result.bundle, product_dir=folder, home=writable).resolve_job_def(
        "shop_run"
    )


def reconstructable_shop_job(product: Path, home: FloeHome) -> Any:
    """Return the job for `dg.execute_job`, which can execute a run again from its failure.

    Dagster keeps what it has reconstructed by function and arguments: without the latter one test got another's job.

    Args:
        product: Folder of the product, which is called shop.
        home: The writable folder.
    """
    places = {"product": str(product), "home": str(home.path)}
    return dg.build_reconstructable_job(__name__, shop_job.__name__, reconstructable_kwargs=places)


@dg.job(executor_def=dg.in_process_executor)
def without_state() -> None:
    """Somebody's job that loads no definitions from a state, as a script or a notebook has it."""


def execute_job(job: Any, **options: Any) -> dg.JobExecutionResult:
    """Return what `dg.execute_job` returns, as in a process of its own.

    Dagster leaves the context in which it reconstructed the job to all that is loaded in the process later.

    Args:
        job: A reconstructable one.
        options: Of `dg.execute_job`.
    """
    before = DefinitionsLoadContext._instance
    DefinitionsLoadContext._instance = None
    try:
        return dg.execute_job(job, **options)
    finally:
        DefinitionsLoadContext._instance = before
