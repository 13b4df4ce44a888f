"""Where the time of a test run goes: the slowest files and tests at its end, and a bound that a single test has to keep.

A suite grows slow one test at a time, and nobody notices. A test that needs longer than the bound says why in `REASONS`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping

import pytest

SECONDS = float(os.environ.get("FLOE_TEST_SECONDS") or 60)
"""So long a test may take with its fixtures, where it gives no reason. A machine that is slow or busy sets more."""
REASONS = {
    "tests/integration/kubernetes/test_lost_workers.py": "Dagster's monitoring has to notice that a pod is gone, and start its run again",
    "tests/integration/test_many_products.py": "ten runs wait for their turn in the queue of one dagster dev",
    "tests/integration/test_dagster_dev.py": "one walk: every edit is compiled by the sensor and served, in one dagster dev",
    "tests/integration/test_first_hour.py": "runs each step of the page for newcomers, in a fresh environment",
    "tests/integration/observing/test_three_products.py": "three products run in turn, each as its own process, for all tests of the file",
    "tests/integration/observing/test_ends_of_runs.py": "runs of a dagster dev are killed and canceled",
    "tests/integration/test_dg.py": "every command of dg is a process of its own",
    "tests/ui": "one dagster dev with the three products, for all tests of the file",
}
"""Why tests may take longer, by the folder or the file that they are in."""
SHOWN = 12


class Budget:
    """Adds up what tests took, on the process that starts them."""

    def __init__(self) -> None:
        self.tests: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count set up, call and tear down to their test; a fixture of a file to the test that began it."""
        self.tests[report.nodeid] += report.duration

    def over(self) -> Mapping[str, float]:
        """Return the seconds of each test that took too long without a reason."""
        return {
            test: seconds
            for test, seconds in self.tests.items()
            if seconds > SECONDS and not any(test.startswith(place) for place in REASONS)
        }

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail where a test took too long."""
        if self.over() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the slowest files with their share of the total, and the slowest test of each."""
        files: Counter[str] = Counter()
        slowest: dict[str, tuple[float, str]] = {}
        for test, seconds in self.tests.items():
            file, _, name = test.partition("::")
            files[file] += seconds
            slowest[file] = max(slowest.get(file, (0.0, "")), (seconds, name))
        total = sum(files.values())
        if total < SECONDS:
            return
        terminalreporter.section(f"{total:,.0f} s of tests; the slowest files")
        for file, seconds in files.most_common(SHOWN):
            longest, name = slowest[file]
            terminalreporter.write_line(
                f"{seconds:7.1f} s {seconds / total:4.0%}  {file}  ({longest:.1f} s {name})"
            )
        for test, seconds in self.over().items():
            terminalreporter.write_line(
                f"{test} took {seconds:.0f} s, and a test may take {SECONDS:.0f} s: make it quicker, or say in REASONS "
                "(tests/budget.py) why it cannot be",
                red=True,
            )


def pytest_configure(config: pytest.Config) -> None:
    """Look on where tests are started, not in the workers that run them."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Budget(), "budget")
