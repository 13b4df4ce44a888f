"""dbt is imported ahead where a step will run, and never by a code server that only loads definitions."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from floe_dagster.definitions.step_processes import executes_a_step


def beget(argv: Sequence[str], depth: int, told: Any) -> None:
    sys.argv = [*argv]
    if depth == 0:
        told.put(executes_a_step())
        return
    child = multiprocessing.get_context("spawn").Process(target=beget, args=(argv, depth - 1, told))
    child.start()
    child.join()


@pytest.mark.parametrize(
    ("command", "depth", "is_step"),
    [
        ("grpc", 0, False),
        ("grpc", 1, False),
        ("grpc", 2, True),
        ("execute_run", 0, False),
        ("execute_run", 1, True),
        ("execute_step", 0, True),
    ],
)
def test_a_step_is_told_by_command_and_depth(
    command: str, depth: int, is_step: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["dagster", "api", command]
    monkeypatch.setattr(sys, "argv", argv)
    if depth == 0:
        assert executes_a_step() == is_step
        return
    told = multiprocessing.get_context("spawn").Queue()
    beget(argv, depth, told)
    assert told.get(timeout=60) == is_step


def test_a_plain_program_executes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["floe-dagster", "run", "grpc"])
    assert not executes_a_step()
