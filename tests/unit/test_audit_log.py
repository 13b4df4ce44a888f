"""The audit log: what a record holds, and that none is lost or mixed with another."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import pytest

from floe_dagster.home import FloeHome
from floe_dagster.observability.audit_log import (
    LAUNCH_TAGS,
    Action,
    AuditLog,
    AuditRecord,
    Outcome,
    changed_rules,
    launched_by,
    of_table,
)

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def records(home: FloeHome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in home.audit_log.read_text().splitlines()]


def test_a_record_says_who_did_what_and_when(home: FloeHome) -> None:
    record = AuditRecord("run", "shop", digest="sha256:1", run_id="r", launched_by={"user": "ann"})
    AuditLog(home).begin(record)
    AuditLog(home).add(of_table(record, "shop.größe\n", "failed", {"rows": 3}))
    first, second = records(home)
    assert first.keys() == {
        "version", "action", "product", "outcome", "digest", "run_id", "launched_by", "at", "user", "host", "process"
    }  # fmt: skip
    assert (first["version"], first["process"], first["outcome"]) == (1, os.getpid(), "succeeded")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", first["at"])
    assert (second["table"], second["outcome"], second["details"]) == ("shop.größe\n", "failed", {"rows": 3})
    assert stat.S_IMODE(home.audit_log.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.audit_log.parent.stat().st_mode) == 0o700


def test_nothing_is_written_where_nobody_asks_for_it(home: FloeHome) -> None:
    log = AuditLog(home, enabled=False)
    with log.action(AuditRecord("run", "shop")):
        log.add(AuditRecord("publish", "shop"))
    assert not home.path.exists()


def test_an_action_has_a_beginning_and_an_end(home: FloeHome) -> None:
    log, begun = AuditLog(home), AuditRecord("run", "shop", details={"full_refresh": True})
    with log.action(begun) as details:
        details["published"] = ["shop.a"]
    with pytest.raises(ValueError, match="hunter22"), log.action(begun):
        raise ValueError("the password is hunter22")
    assert [(each["outcome"], each["details"]) for each in records(home)] == [
        ("began", {"full_refresh": True}),
        ("succeeded", {"full_refresh": True, "published": ["shop.a"]}),
        ("began", {"full_refresh": True}),
        # What the error says is not ours, and may hold anything.
        ("failed", {"full_refresh": True, "error": "ValueError"}),
    ]


def test_what_cannot_be_recorded_is_not_begun_and_what_is_done_is_not_undone(
    home: FloeHome, caplog: pytest.LogCaptureFixture
) -> None:
    home.audit_log.mkdir(parents=True)
    log = AuditLog(home)
    with pytest.raises(OSError), log.action(AuditRecord("run", "shop")):
        pytest.fail("it has begun")
    log.add(AuditRecord("publish", "shop"))
    assert "lacks a record" in caplog.text


WRITER = """
import sys
from pathlib import Path
from floe_dagster.home import FloeHome
from floe_dagster.observability.audit_log import AuditLog, AuditRecord
log = AuditLog(FloeHome(Path(sys.argv[1])))
for number in range(200):
    log.begin(AuditRecord("publish", sys.argv[2], details={"number": number, "text": "ß" * 3000}))
"""


def test_records_of_many_processes_and_threads_do_not_mix(home: FloeHome) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(home.path), f"p{number}"]) for number in range(3)
    ]
    with ThreadPoolExecutor(4) as pool:
        for number in range(200):
            pool.submit(AuditLog(home).begin, AuditRecord("run", "here", details={"number": number}))
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    found = {(each["product"], each["details"]["number"]) for each in records(home)}
    assert found == {(name, number) for name in ("p0", "p1", "p2", "here") for number in range(200)}


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({}, {}),
        ({"dagster/user": "ann@example.com", "floe/digest": "1"}, {"user": "ann@example.com"}),
        ({"dagster/schedule_name": "shop_schedule"}, {"schedule": "shop_schedule"}),
        ({"dagster/sensor_name": "s", "dagster/parent_run_id": "r"}, {"sensor": "s", "again_after": "r"}),
        ({"user": "x" * 1000}, {"user": "x" * 200}),
    ],
)
def test_who_asked_for_a_run(tags: dict[str, str], said: dict[str, str]) -> None:
    assert launched_by(tags) == said


def test_changed_rules_name_who_decides_now() -> None:
    def decision(field: str, value: Any) -> dict[str, Any]:
        return {"field": field, "value": value, "decided_by": "manifest m", "file": "m.yaml", "line": 7}

    before = [decision("a", 1), decision("b", 1), decision("c", 1)]
    after = [decision("a", 1), decision("b", 2), decision("d", 3)]
    there = {"decided_by": "manifest m", "place": "m.yaml:7"}
    assert changed_rules(before, after) == [
        {"field": "b", "before": 1, "after": 2, **there},
        {"field": "c", "before": 1, "after": None, "decided_by": None, "place": None},
        {"field": "d", "before": None, "after": 3, **there},
    ]
    assert changed_rules(after, after) == []


def test_the_page_explains_every_field_action_and_outcome() -> None:
    section = PAGE.split("## The audit log")[1].split("\n## ")[0]
    names = [
        *AuditRecord.__dataclass_fields__,
        *get_args(Action),
        *get_args(Outcome),
        *set(LAUNCH_TAGS.values()),
    ]
    assert [name for name in names if f"`{name}`" not in section] == []
