"""The program `floe-dagster` ends as its command says, without waiting for the interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from floe_dagster.cli import main as module, program
import floe_dagster.cli.main, atexit

class Lasting:
    def __del__(self):
        print("taken apart")

lasting = Lasting()
def command():
    atexit.register(print, "told at exit")
    print("printed")
    {ending}
sys.modules["floe_dagster.cli.main"].main = command
sys.exit(program.program())
"""


@pytest.mark.parametrize(
    ("ending", "code", "last"),
    [
        ("return 0", 0, "told at exit"),
        ("return 2", 2, "told at exit"),
        ("sys.exit(3)", 3, "taken apart"),
        ("raise ValueError('seen')", 1, "taken apart"),
    ],
)
def test_what_is_printed_and_registered_comes_before_the_end(ending: str, code: int, last: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(ending=ending)], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert done.stdout.split("\n")[0] == "printed"
    assert done.stdout.strip().split("\n")[-1] == last
    assert ("seen" in done.stderr) == ("seen" in ending)


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    program = Path(sys.executable).with_name("floe-dagster")
    process = subprocess.Popen(
        [program, "schema", "manifest"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate()
    assert b"Traceback" not in said
