"""Where the kernel ends dbt alone, because the memory of its container ran out, the run says so."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import dagster as dg

from floe_dagster.compilation.stages import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.home import FloeHome

SECONDS = 60


def dbt_process() -> int:
    """Return the dbt that this process has started, once it had time to begin its models."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_bytes()
            except (OSError, ValueError):
                continue
            if parent == os.getpid() and b"dbt\0" in command and b"build\0" in command:
                time.sleep(3)
                return int(entry.name)
        time.sleep(0.1)
    raise AssertionError(f"no dbt was started within {SECONDS} s")


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
