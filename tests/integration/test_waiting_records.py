"""`floe-dagster lineage` and `floe-dagster telemetry`: what waits for a receiver that was away."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from floe_dagster.home import FloeHome
from tests.conftest import MANIFEST
from tests.receivers import FaultMode, LineageReceiver, OtlpReceiver
from tests.unit.delivering import event, left_behind

pytestmark = pytest.mark.slow

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def floe(tmp_path: Path) -> Command:
    """Run the command in a process of its own, as each takes its outboxes with it when it ends."""
    environment = {**os.environ, "FLOE_HOME": str(tmp_path / "home")}

    def run(*arguments: str | Path) -> tuple[int, str]:
        done = subprocess.run(
            [Path(sys.executable).with_name("floe-dagster"), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout if "json" in arguments else done.stdout + done.stderr

    return run


def observed_by(shop: Path, otlp: OtlpReceiver, lineage: LineageReceiver) -> None:
    section = {
        "tracing": {"endpoint": otlp.http_endpoint, "protocol": "http"},
        "lineage": {"endpoint": lineage.url},
    }
    (shop.parent / "manifest.yaml").write_text(f"{MANIFEST}observability: {json.dumps(section)}\n")


def outboxes(floe: Command, *arguments: str | Path) -> tuple[int, dict[str, dict[str, Any]]]:
    code, text = floe(*arguments, "--format", "json")
    return code, {one["kind"]: one for one in json.loads(text)["outboxes"]}


def test_nothing_of_an_outage_is_lost(shop: Path, floe: Command) -> None:
    with OtlpReceiver() as otlp, LineageReceiver() as lineage:
        observed_by(shop, otlp, lineage)
        otlp.stop_listening()
        lineage.stop_listening()
        code, text = floe("run", shop)
        assert code == 0, text
        assert "Traceback" not in text
        waiting = outboxes(floe, "lineage", "status", shop)[1]["lineage"]["waiting"]
        assert waiting > 0
        code, told = outboxes(floe, "lineage", "replay", shop)
        assert code == 1 and told["lineage"]["delivered"] == 0 and told["lineage"]["waiting"] == waiting
        assert "nothing listens" in told["lineage"]["error"]
        lineage.start_listening()
        otlp.start_listening()
        code, told = outboxes(floe, "lineage", "replay", shop)
        assert code == 0 and told["lineage"] == {
            "product": "shop",
            "kind": "lineage",
            "delivered": waiting,
            "refused": 0,
            "waiting": 0,
            "unreachable": 0,
        }
        code, told = outboxes(floe, "telemetry", "replay", shop)
        assert code == 0 and told["traces"]["delivered"] > 0 and told["metrics"]["delivered"] > 0
        assert len(lineage.events()) == waiting

        other = shutil.copytree(shop, shop.parent / "other", ignore=shutil.ignore_patterns("target"))
        code, text = floe("lineage", "status", other, shop)
        assert code == 2 and "other is not compiled" in text
        assert any(line.startswith("shop ") for line in text.splitlines()), text
        run_ids = {event["run"]["runId"] for event in lineage.events()}
        assert len(run_ids) == 3 and otlp.spans(), "the run and its two models"


def test_what_was_refused_is_kept_and_sent_again_on_request(shop: Path, floe: Command) -> None:
    with OtlpReceiver() as otlp, LineageReceiver() as lineage:
        observed_by(shop, otlp, lineage)
        lineage.mode = FaultMode.BAD_REQUEST
        assert floe("run", shop)[0] == 0
        status = outboxes(floe, "lineage", "status", shop)[1]["lineage"]
        assert status["refused"] > 0
        lineage.mode = FaultMode.OK
        code, told = outboxes(floe, "lineage", "replay", "--refused", shop)
        assert code == 0 and told["lineage"]["delivered"] == status["refused"]
        assert len(lineage.events()) == status["refused"]


def test_a_product_that_is_not_compiled_says_what_to_do(shop: Path, floe: Command) -> None:
    code, text = floe("lineage", "status", shop)
    assert code == 2 and "floe-dagster compile" in text


def test_a_receiver_that_is_no_longer_named_is_an_error_that_loses_nothing(shop: Path, floe: Command) -> None:
    with OtlpReceiver() as otlp, LineageReceiver() as lineage:
        observed_by(shop, otlp, lineage)
        lineage.stop_listening()
        assert floe("run", shop)[0] == 0
        (shop.parent / "manifest.yaml").write_text(
            f"{MANIFEST}observability: {json.dumps({'lineage': {'transport': 'noop'}})}\n"
        )
        assert floe("compile", shop)[0] == 0
        code, text = floe("lineage", "replay", shop)
        assert code == 1 and "names no receiver" in text
        assert outboxes(floe, "lineage", "status", shop)[1]["lineage"]["waiting"] > 0


def test_what_this_user_cannot_deliver_is_counted_and_named(
    shop: Path, floe: Command, home: FloeHome
) -> None:
    with OtlpReceiver() as otlp, LineageReceiver() as lineage:
        observed_by(shop, otlp, lineage)
        assert floe("compile", shop)[0] == 0
        outbox = home.outbox_dir("shop", "lineage")
        left_behind(outbox, [event(1)])
        (locked,) = outbox.glob("*.records")
        # What nobody can open as a file, the superuser included.
        locked.with_name(f"{locked.name}.lock").unlink()
        locked.with_name(f"{locked.name}.lock").mkdir()
        left_behind(outbox, [event(2)])
        assert outboxes(floe, "lineage", "status", shop)[1]["lineage"]["unreachable"] == 1
        code, text = floe("lineage", "replay", shop)
        assert code == 1 and str(locked) in text and "Is a directory" in text and ".lock" in text
        assert "processes that still run" not in text and "Traceback" not in text
        assert [one["run"]["runId"][-1] for one in lineage.events()] == ["2"]
        assert locked.exists()
