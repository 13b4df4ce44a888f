"""Where the kernel ends dbt alone, because the memory of its container ran out, the run says so."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import dagster as dg
import pytest

from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.home import FloeHome
from tests.processes import dbt_below, wait_for

pytestmark = pytest.mark.slow


def dbt_process() -> int:
    """Return the dbt that this process has started, once it had time to begin its models."""
    dbt: int = wait_for("dbt", lambda: dbt_below(os.getpid()), 60)
    time.sleep(3)
    return dbt


def test_a_killed_dbt_fails_the_run_clearly_and_is_not_tried_again(
    shop: Path, home: FloeHome, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (shop / "models" / "daily.sql").write_text(f"select length(content) as n from read_text('{fifo}')\n")
    result = compile_product(shop, home=home)
    assert result.bundle is not None, result.findings
    definitions = build_product_definitions(result.bundle, product_dir=shop, home=home)
    killer = threading.Thread(target=lambda: os.kill(dbt_process(), signal.SIGKILL))
    killer.start()
    outcome = definitions.resolve_job_def("shop_run").execute_in_process(
        instance=instance, raise_on_error=False
    )
    killer.join()
    assert not outcome.success
    said = str(outcome.failure_data_for_node("shop_dbt"))
    assert "dbt was killed, most likely because the memory ran out" in said
    assert "resources in floe.yaml" in said and "memory_limit" in said
    assert not [event for event in outcome.all_events if event.is_step_up_for_retry]
