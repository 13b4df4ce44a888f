"""docs/product.md, "A new product": the page's own files and commands, in an empty folder outside of git."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.services.programs import free_port
from floe_dagster.home import ROOT_MARKERS
from tests.conftest import ROOT
from tests.dagster_dev import DagsterDev

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "product.md"
FENCE = re.compile(r"^(?:`([^`\n]+)`:\n\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SERVING = "dagster dev"


@dataclass
class Commands:
    """Commands of the page, and what it says one sees."""

    text: str
    seen: list[str] = field(default_factory=list)


def steps() -> Iterator[tuple[str, str] | Commands]:
    """Yield the files (path and content) and the commands of the page, in its order."""
    section = PAGE.read_text(encoding="utf-8").partition("\n## A new product\n")[2].partition("\n## ")[0]
    commands: Commands | None = None
    for path, language, content in FENCE.findall(section):
        if path:
            yield path, content
        elif language == "sh":
            commands = Commands(content)
            yield commands
        else:
            assert language == "text" and commands is not None, f"what is this block? {content}"
            commands.seen += content.splitlines()


def promised(seen: list[str], port: int) -> re.Pattern[str]:
    """Return a pattern for output with these lines in this order; `…` is anything, white space is not compared."""
    lines = (line.replace(":3000", f":{port}") for line in seen)
    words = (r"\s+".join(re.escape(word) for word in line.split()).replace("…", r"\S.*?") for line in lines)
    return re.compile(r"[\s\S]*?".join(words))


class AsWritten(DagsterDev):
    """`dagster dev` as the page starts it.

    Args:
        project: Where the command is typed.
        command: For the shell.
        environment: Of the shell.
        output: Where its output goes.
    """

    def __init__(self, project: Path, command: str, environment: dict[str, str], output: Path) -> None:
        self.project = project
        self.output_file = output
        self.port = int(environment["DAGSTER_CLI_DEV_PORT"])
        self.url = f"http://127.0.0.1:{self.port}"
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                ["bash", "-euc", command.replace(SERVING, f"exec {SERVING}")],
                cwd=project,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    for folder in tmp_path.parents:
        assert not any((folder / marker).exists() for marker in ROOT_MARKERS), f"{folder} is a project"
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A new user's: no settings of dbt or of Dagster, no variables of ours."""
    (tmp_path / "user").mkdir()
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path / "user"),
        "LANG": "C.UTF-8",
        # Where the port is not named, `dagster dev` takes 3000, which another test may have.
        "DAGSTER_CLI_DEV_PORT": str(free_port()),
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }


def test_the_page_leads_from_an_empty_folder_to_a_published_table(
    empty: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    def shell(command: str, folder: Path = empty, code: int = 0) -> str:
        done = subprocess.run(
            ["bash", "-euc", command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == code, f"{command}\n{done.stdout}"
        assert "Traceback" not in done.stdout, done.stdout
        return done.stdout

    def was_promised(commands: Commands, output: str) -> bool:
        assert commands.seen, f"the page does not say what one sees of {commands.text}"
        return promised(commands.seen, int(environment["DAGSTER_CLI_DEV_PORT"])).search(output) is not None

    *first, last = list(steps())
    for step in first:
        if isinstance(step, Commands):
            output = shell(step.text)
            assert was_promised(step, output), f"{step.text}\npromised: {step.seen}\nseen:\n{output}"
        else:
            path, content = step
            assert not (empty / path).exists()
            (empty / path).parent.mkdir(parents=True, exist_ok=True)
            (empty / path).write_text(content)

    assert set(empty.parent.rglob(".floe")) == {empty / ".floe"}, "one folder, beside what the user wrote"
    product = empty / "products" / "orders"
    assert "2026-01-05" in shell("floe-dagster show orders.orders_by_day", product)
    assert "is a seed" in shell("floe-dagster show orders.raw_orders", code=2)
    # The same in git, of which nothing of ours becomes a part.
    shell("git init --quiet .")
    assert "unchanged  orders" in shell("floe-dagster compile products/orders")
    listed = shell("git status --porcelain --untracked-files=all")
    assert {line.split()[1] for line in listed.splitlines()} == {
        *(step[0] for step in first if not isinstance(step, Commands)),
        "products/orders/definitions.py",
        "products/orders/__init__.py",
    }

    assert isinstance(last, Commands) and SERVING in last.text
    dev = AsWritten(empty, last.text, environment, tmp_path / "dagster-dev.log")
    try:
        dev.until("the page's output", lambda: was_promised(last, dev.output))
        dev.until("the location", lambda: dev.locations() == {"orders": "RepositoryLocation"})
        assert {"orders/orders_by_day", "orders/raw_orders"} <= dev.descriptions().keys()
        assert [run["status"] for run in dev.runs("orders_run")] == ["SUCCESS"], "the run of the command"
    finally:
        dev.stop()
    assert set(empty.parent.rglob(".floe")) == {empty / ".floe"}
