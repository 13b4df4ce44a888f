"""What dbt says is wrong: each message gets the file and the line that a person has to look at.

The messages are dbt 1.11's, as `--log-format json` prints them; tests/integration/test_messages.py has dbt itself say them.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from floe_dagster.compilation.dbt_messages import DbtMessages, last_line

TRACEBACK = """Traceback (most recent call last):
  File "/x/dbt/cli/requires.py", line 187, in wrapper
    result, success = func(*args, **kwargs)
  File "/x/dbt/deps/resolver.py", line 9, in package
    return entry["version"]
KeyError: 'version'
"""


def say(*messages: tuple[str, str]) -> str:
    return "\n".join(json.dumps({"info": {"level": level, "msg": text}}) for level, text in messages)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "models" / "staging").mkdir(parents=True)
    (tmp_path / "models" / "staging" / "_staging.yml").write_text(
        "models:\n  # orders\n  - name: customers\n  - name: orders\n    columns:\n      - {name: id, data_tests: [[1]]}\n"
    )
    (tmp_path / "models" / "orders.sql").write_text("-- nowhere\nselect 1\nfrom {{ ref('nowhere') }}\n")
    (tmp_path / "packages.yml").write_text("packages:\n  - git: https://git.example.com/a/b.git\n")
    return tmp_path


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (
            "Parsing Error\n Invalid models config given in models/staging/_staging.yml @ models: {'name': 'orders', 'columns':"
            " [{'name': 'id'}]} - at path ['columns'][0]['data_tests'][0]: [1] is not valid under any of the given schemas",
            "models/staging/_staging.yml:6",
        ),
        (
            "Parsing Error\n Error reading shop: staging/_staging.yml - Runtime Error\n Syntax error near line 3",
            "models/staging/_staging.yml:3",
        ),
        (
            "Compilation Error\n Model 'model.shop.orders' (models/orders.sql) depends on a node named 'nowhere' which was not"
            " found",
            "models/orders.sql:3",
        ),
        (
            "Documentation for 'model.shop.orders' depends on doc 'none' which was not found",
            "models/staging/_staging.yml:4",
        ),
        ("Something that names nothing", "dbt_project.yml:None"),
    ],
)
def test_a_message_is_placed(project: Path, message: str, place: str) -> None:
    (finding,) = DbtMessages(project, "shop").findings(say(("error", message)))
    assert f"{finding.file}:{finding.line}" == f"shop/{place}"


def test_a_traceback_is_never_shown(project: Path) -> None:
    said = say(("error", "'version'"), ("error", TRACEBACK))
    (finding,) = DbtMessages(project, "shop").findings(said)
    assert finding.message == "dbt: dbt ended with KeyError: 'version'"
    (finding,) = DbtMessages(project, "shop").findings(say(("error", "No such thing"), ("error", TRACEBACK)))
    assert finding.message == "dbt: No such thing"
    assert last_line(TRACEBACK) == last_line(" ".join(TRACEBACK.split())) == "KeyError: 'version'"


@pytest.mark.parametrize(
    "message",
    [
        "External connection exception occurred: HTTPSConnectionPool(host='git.example.com', port=443): Max retries exceeded",
        "Error checking out spec='None' for repo https://token@git.example.com/a/b.git Could not resolve host: git.example.com",
    ],
)
def test_a_host_that_cannot_be_reached_is_one_line(project: Path, message: str) -> None:
    (finding,) = DbtMessages(project, "shop", "packages.yml").findings(
        say(("error", message), ("error", TRACEBACK))
    )
    assert (finding.code, finding.file, finding.line) == ("packages-unreachable", "shop/packages.yml", 2)
    assert finding.message.startswith("git.example.com cannot be reached") and "token" not in finding.message
