"""In which order the tests of a session run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

FILES = (
    "tests/unit/test_progress.py",
    "tests/unit/test_policies.py",
    "tests/integration/test_dg.py",
    "tests/integration/test_event_log.py",
    "tests/ui",
)


def collected(*options: str) -> list[str]:
    """Return the ids of the tests of `FILES`, in their order."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *options]
    done = subprocess.run([*command, *FILES], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


@pytest.fixture(scope="module")
def orders() -> dict[str, list[str]]:
    seeds = {seed: collected(f"--randomly-seed={seed}") for seed in ("1", "2")}
    return {**seeds, "1 again": collected("--randomly-seed=1"), "as written": collected("-p", "no:randomly")}


def test_a_seed_is_an_order(orders: dict[str, list[str]]) -> None:
    assert orders["1"] == orders["1 again"]
    assert orders["1"] != orders["2"] and orders["1"] != orders["as written"]
    assert sorted(orders["1"]) == sorted(orders["2"]) == sorted(orders["as written"])


def test_files_of_the_slow_layer_begin(orders: dict[str, list[str]]) -> None:
    for order in orders.values():
        slow = [name.startswith("tests/integration/") for name in order]
        assert slow == sorted(slow, reverse=True) and {True, False} == {*slow}


def test_a_file_whose_tests_build_on_each_other_keeps_its_order(orders: dict[str, list[str]]) -> None:
    walks = [[name for name in order if name.startswith("tests/ui/")] for order in orders.values()]
    assert len(walks[0]) > 3 and all(walk == walks[0] for walk in walks)


def test_no_value_is_seeded_before_a_test(pytestconfig: pytest.Config) -> None:
    assert not getattr(pytestconfig.option, "randomly_reset_seed", False)
