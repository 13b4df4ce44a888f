"""What dbt prints: its structured events are followed, and everything is printed in words for people."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from floe_dagster.execution.dbt_process import dbt_events


def event(message: str, name: str = "LogModelResult") -> bytes:
    return json.dumps({"info": {"name": name, "level": "info", "msg": message}, "data": {}}).encode()


def process(*lines: bytes) -> subprocess.Popen[bytes]:
    text = b"".join(line + b"\n" for line in lines)
    code = f"import sys; sys.stdout.buffer.write({text!r}); sys.exit(3)"
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE)


@pytest.mark.parametrize(
    ("line", "printed", "is_event"),
    [
        (event("1 of 2 OK"), ["1 of 2 OK"], True),
        (b"a warning of a library", ["a warning of a library"], False),
        (b'{"looks": "like an event"}', ['{"looks": "like an event"}'], False),
        (b"[1, 2]", ["[1, 2]"], False),
        (b"caf\xe9", ["caf\N{REPLACEMENT CHARACTER}"], False),
        (event("a macro says so", "JinjaLogInfo"), ["a macro says so"], True),
        # As the macros of Dagster's own dbt package do, for programs.
        (event('{"columns": {}}', "JinjaLogInfo"), [], False),
    ],
)
def test_a_line_of_dbt(
    line: bytes, printed: list[str], is_event: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    dbt = process(line)
    assert [found["info"]["msg"] for found in dbt_events(dbt)] == (printed if is_event else [])
    assert capsys.readouterr().out.splitlines() == printed
    # Who reads to the end knows how it ended.
    assert dbt.returncode == 3


LOADED = """
import sys
import floe_dagster.definitions.component
import floe_dagster.definitions.factory
print(sorted({name.partition(".")[0] for name in sys.modules} & {"dbt", "dagster_dbt"}))
"""


def test_who_loads_definitions_imports_no_dbt() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
