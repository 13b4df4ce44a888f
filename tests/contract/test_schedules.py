"""A schedule that compiles is one that Dagster takes, and that fires at some time."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import dagster as dg
import pytest
from dagster._utils.schedules import is_valid_cron_string, schedule_execution_time_iterator
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from floe_dagster.compilation.documents import read_document
from floe_dagster.compilation.validation import parse_manifest, parse_product
from floe_dagster.definitions.compiling import DagsterOrchestrator, validate_product
from floe_dagster.schemas.cron import CRON_FIELDS, Cron, is_plain
from floe_dagster.schemas.product import TimeZone
from tests.conftest import MANIFEST, SPEC

FINE = [
    "0 6 * * *",
    " 0 6  * * * ",
    "@hourly",
    "@DAILY",
    "@midnight",
    "@weekly",
    "@monthly",
    "@yearly",
    "@annually",
    "0 6 * JAN mon-FRI",
    "0 6 ? * *",
    "*/5,1-3 8-18/2 1,15 * *",
    "0 6 L * *",
    "0 6 * * L5",
    "0 6 * * MON#2",
    "0 22-2 * * *",
    "0 6 * * SAT-SUN",
    "* * * * 7",
    "0 0 29 2 *",
    "0 0 L 2 *",
]
REFUSED = [
    "",
    "  ",
    "@reboot",
    "@every 5m",
    "@ daily",
    "*/0 6 * FOO *",
    "*/10 * *",
    "0 0 0 * * *",
    "0 0 0 1 1 ? 2030",
    "60 * * * *",
    "* 24 * * *",
    "* * 0 * *",
    "* * 32 * *",
    "* * * 13 *",
    "* * * JANUARY *",
    "* * * * 8",
    "* * * * XYZ",
    "0 6 * * 1#6",
    "0 6 * * 5L",
    "0 6 1W * *",
    "-1 * * * *",
    "1,,2 * * * *",
    "1.5 * * * *",
    "H H * * *",
    "0 0 31 2 *",
    "0 0 30 2 *",
]
NEVER = ["0 0 30,31 2 *", "0 0 31 4 *", "0 0 31 4,6,9,11 *", "0 0 30-31 FEB *"]
"""Dagster takes them, and its daemon ends with an error when it looks for their next time."""
ODD = ["*/90 * * * *", "* */25 * * *", "0 */48 * * *"]
"""Dagster takes them, and warns."""

FIELDS = st.text(st.sampled_from("0123456789*/,-L#?JANMONabW"), min_size=1, max_size=6)
EXPRESSIONS = (
    st.lists(FIELDS | st.sampled_from(["*", "0", "*/5", "1-5", "MON"]), min_size=4, max_size=6).map(" ".join)
    | st.sampled_from([*FINE, *REFUSED, *NEVER, *ODD])
    | st.text(max_size=12)
)
_CRON, _ZONE = TypeAdapter(Cron), TypeAdapter(TimeZone)


def taken_by_dagster(cron: str, timezone: str = "UTC") -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dg.ScheduleDefinition(name="a", job_name="b", cron_schedule=cron, execution_timezone=timezone)
        except Exception:
            return False
    return True


def taken_by_the_document(cron: str) -> bool:
    try:
        _CRON.validate_python(cron)
    except ValidationError:
        return False
    return True


def severity(cron: str, timezone: str = "UTC") -> str | None:
    problem = DagsterOrchestrator().schedule_problem(cron, timezone)
    return problem.severity if problem else None


@pytest.mark.parametrize(
    ("cron", "expected"),
    [(cron, None) for cron in FINE]
    + [(cron, "error") for cron in (*REFUSED, *NEVER)]
    + [(cron, "warning") for cron in ODD],
)
def test_what_is_said_of_a_schedule(cron: str, expected: str | None) -> None:
    assert severity(cron) == expected
    assert taken_by_dagster(cron) == (cron not in REFUSED)
    if expected != "error":
        assert taken_by_the_document(cron)


@settings(max_examples=400, deadline=None)
@given(cron=EXPRESSIONS)
@example("٣ * * * *")
@example("9" * 5000 + " * * * *")
def test_no_document_refuses_what_dagster_takes(cron: str) -> None:
    assert taken_by_the_document(cron) or not taken_by_dagster(cron)


@settings(max_examples=400, deadline=None)
@given(cron=EXPRESSIONS)
def test_what_compiles_dagster_takes_and_fires(cron: str) -> None:
    if severity(cron) != "error":
        assert taken_by_dagster(cron) and is_valid_cron_string(cron)
        times = schedule_execution_time_iterator(1_790_000_000.0, cron, "UTC")
        assert next(times) <= next(times)
    elif taken_by_dagster(cron):
        with pytest.raises(Exception):  # noqa: B017  # each library below it raises its own
            next(schedule_execution_time_iterator(1_790_000_000.0, cron, "UTC"))


PLAIN = st.tuples(
    *(
        st.just("*") | st.integers(0, 99).map(str) | st.integers(0, 99).map("*/{}".format)
        for _field in CRON_FIELDS
    )
).map(" ".join)


@settings(max_examples=400, deadline=None)
@given(cron=PLAIN | EXPRESSIONS)
@example("*/24 */12 */28 */12 */7")
def test_what_is_plain_needs_no_dagster(cron: str) -> None:
    if is_plain(cron):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dg.ScheduleDefinition(name="a", job_name="b", cron_schedule=cron, execution_timezone="UTC")
        next(schedule_execution_time_iterator(1_790_000_000.0, cron, "UTC"))


def test_documents_with_a_usual_schedule_are_read_without_dagster(shop: Path) -> None:
    (shop / "floe.yaml").write_text(SPEC + "schedule: {cron: 0 6 * * *, timezone: Europe/Berlin}\n")
    code = (
        "import sys; from floe_dagster.cli import main; "
        f"code = main(['validate', '--documents', {str(shop)!r}]); sys.exit(code or 'dagster' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("UTC", True),
        ("Europe/Berlin", True),
        ("Etc/GMT+2", True),
        ("EST5EDT", True),
        ("", False),
        ("Mars/X", False),
        ("Europe", False),
        ("GMT+2", False),
        ("+02:00", False),
        ("../etc/passwd", False),
        ("/etc/localtime", False),
        ("tzdata.zi", False),
        ("Europe/Berlin ", False),
    ],
)
def test_a_time_zone_that_a_document_may_name_is_one_to_dagster(name: str, is_one: bool) -> None:
    try:
        _ZONE.validate_python(name)
    except ValidationError:
        assert not is_one
    else:
        assert is_one and taken_by_dagster("0 6 * * *", name)


def test_a_time_zone_in_other_letters_gets_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "floe.yaml").write_text(
        SPEC + "schedule: {cron: 0 6 * * *, timezone: europe/berlin}\n", encoding="utf-8"
    )
    (finding,) = parse_product(read_document(tmp_path / "floe.yaml", root=tmp_path)).findings
    assert "did you mean Europe/Berlin?" in finding.message


@pytest.mark.parametrize("cron", ["*/0 6 * FOO *", "0 0 30,31 2 *"])
def test_both_documents_are_told_where_their_schedule_stands(shop: Path, cron: str) -> None:
    spec = shop / "floe.yaml"
    spec.write_text(SPEC + f"schedule:\n  timezone: Europe/Berlin\n  cron: {json.dumps(cron)}\n")
    orchestrator = f"plugins:\n  orchestrator:\n    type: dagster\n    config: {{default_schedule: {json.dumps(cron)}}}\n"
    parent = shop.parent / "parent.yaml"
    parent.write_text(MANIFEST.replace("test-platform", "enterprise") + orchestrator)
    manifest = shop.parent / "manifest.yaml"
    manifest.write_text(MANIFEST + "scope: domain\nparent_manifest: parent.yaml\n" + orchestrator)
    result = validate_product(shop, documents_only=True)
    assert result.exit_code == 2
    assert [(f.code, f.file, f.line, f.field) for f in result.findings] == [
        ("schedule", "manifest.yaml", 9, "plugins.orchestrator.config.default_schedule"),
        ("schedule", "parent.yaml", 7, "plugins.orchestrator.config.default_schedule"),
        ("schedule", "shop/floe.yaml", 7, "schedule.cron"),
    ]
    for finding in result.findings:
        assert finding.found == repr(cron) and finding.allowed and finding.fix
    if "FOO" in cron:
        assert "the minute */0 and the month FOO" in result.findings[0].message


@pytest.mark.parametrize("cron", ["*/10 * *", "61 * * * *"])
def test_an_editor_without_dagster_is_told_what_is_plain(tmp_path: Path, cron: str) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(
        MANIFEST + f"plugins:\n  orchestrator: {{type: dagster, config: {{default_schedule: '{cron}'}}}}\n"
    )
    (finding,) = parse_manifest(read_document(path, root=tmp_path)).findings
    assert (finding.file, finding.line) == ("manifest.yaml", 5)
    assert finding.field == "plugins.orchestrator.config.default_schedule"
    assert finding.found and finding.allowed and finding.fix
