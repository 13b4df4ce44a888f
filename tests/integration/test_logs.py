"""What a run prints, in the format and at the level of the manifest."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from floe_dagster.home import FloeHome
from floe_dagster.observability.logs import configure_product_logger, product_logger
from tests.conftest import MANIFEST

pytestmark = pytest.mark.slow

MATERIALIZE = """\
import sys
from pathlib import Path

import dagster as dg

from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.home import FloeHome

product, home = Path(sys.argv[1]), FloeHome(Path(sys.argv[2]))
bundle = compile_product(product, home=home).bundle
definitions = build_product_definitions(bundle, product_dir=product, home=home)
# As the UI materializes: without a word of configuration.
with dg.DagsterInstance.ephemeral() as instance:
    definitions.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance)
"""


def printed(shop: Path, home: FloeHome, **logging_section: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Materialize everything in a process of its own; the lines that are JSON, and those that are not."""
    section = json.dumps(
        {"tracing": {"exporter": "console"}, "lineage": {"transport": "noop"}, "logging": logging_section}
    )
    (shop.parent / "manifest.yaml").write_text(f"{MANIFEST}observability: {section}\n")
    done = subprocess.run(
        [sys.executable, "-c", MATERIALIZE, str(shop), str(home.path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    logs, rest = [], []
    for line in (done.stdout + done.stderr).splitlines():
        if line.startswith('{"timestamp"'):
            logs.append(json.loads(line))
        else:
            rest.append(line)
    return logs, rest


def test_json_lines_carry_the_ids_of_run_trace_and_step(shop: Path, home: FloeHome) -> None:
    logs, rest = printed(shop, home, level="INFO", format="json")
    (published,) = [line for line in logs if line["message"].startswith("published shop.orders")]
    assert published["level"] == "INFO" and published["product"] == "shop"
    assert published["step"] == "shop_dbt" and len(published["run_id"]) == 36
    assert len(published["trace_id"]) == 32 and len(published["span_id"]) == 16
    of_step = [line for line in logs if line.get("step") == "shop_dbt"]
    assert {line["run_id"] for line in of_step} == {published["run_id"]}
    said_by_dbt = [line["message"] for line in logs if line["logger"] == "dbt"]
    assert any("OK created sql table model main.orders" in line for line in said_by_dbt)
    assert not any("OK created" in line for line in rest), "dbt's own output is JSON as well"
    assert not any(line["level"] == "DEBUG" for line in logs)


def test_text_lines_carry_them_too(shop: Path, home: FloeHome) -> None:
    logs, rest = printed(shop, home, level="INFO", format="text")
    assert logs == []
    (published,) = [line for line in rest if "published shop.orders" in line]
    assert " INFO shop published shop.orders" in published
    assert "run_id=" in published and "trace_id=" in published and "step=shop_dbt" in published


def test_the_level_decides(shop: Path, home: FloeHome) -> None:
    logs, rest = printed(shop, home, level="ERROR", format="json")
    assert not any(line["level"] in ("DEBUG", "INFO", "WARNING") for line in logs)
    assert not any("published shop.orders" in line for line in rest)


def test_two_products_in_one_process_have_their_own_format_and_level(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    configure_product_logger("one", "INFO", as_json=True)
    configure_product_logger("two", "WARNING", as_json=False)
    for slug in ("one", "two"):
        product_logger(slug).info("%s is told", slug)
        product_logger(slug).warning("%s is warned", slug)
    first, second, third = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["message"] for line in (first, second)] == ["one is told", "one is warned"]
    assert third.endswith("WARNING two two is warned")


def test_a_process_with_logging_of_its_own_gets_each_line_once(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    configure_product_logger("one", "INFO", as_json=True)
    product_logger("one").warning("once")
    assert capsys.readouterr().err == "" and [record.message for record in caplog.records] == ["once"]
