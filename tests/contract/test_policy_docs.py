"""The page on policies says what the code does."""

from __future__ import annotations

from typing import get_args

from floe_dagster.policies import looks_at_table
from floe_dagster.policies.allowed import Allowed, WeakTest
from floe_dagster.policies.naming import NAMING_PATTERNS
from floe_dagster.policies.personal_data import PERSONAL_NAMES
from floe_dagster.policies.tiers import TIER_OF_FOLDER
from tests.conftest import ROOT
from tests.generate_docs import POLICIES_PAGE, with_policies

PAGE = (ROOT / "docs" / POLICIES_PAGE).read_text(encoding="utf-8")


def test_the_table_of_policies_is_current() -> None:
    assert with_policies(PAGE) == PAGE, "run `make docs`"
    assert PAGE.count("| policy |") == 1


def test_the_patterns_are_those_of_the_code() -> None:
    for name, pattern in NAMING_PATTERNS.items():
        assert f"| `{name}` | `{pattern.replace('|', chr(92) + '|')}` |" in PAGE


def test_every_folder_with_a_tier_is_named() -> None:
    assert all(f"`{folder}`" in PAGE for folder in TIER_OF_FOLDER)


def test_what_policies_look_at_is_shown_as_the_code_has_it() -> None:
    assert looks_at_table() in PAGE


def test_every_name_of_personal_data_is_shown() -> None:
    for what, names in PERSONAL_NAMES.items():
        assert f"| {what} | {', '.join(names)} |" in PAGE


def test_every_kind_of_weak_test_and_everything_that_can_be_allowed_is_explained() -> None:
    assert all(f"| `{kind}` |" in PAGE for kind in get_args(WeakTest))
    assert all(f"    {field}: " in PAGE for field in Allowed.model_fields)


def test_each_way_around_says_who_catches_it_and_when() -> None:
    rows = [line for line in PAGE.partition("## Ways around")[2].splitlines() if line.startswith("|")][2:]
    moments = {"validate", "compile", "check", "run", "publication"}
    for row in rows:
        _, way, caught_by, when, _ = row.split("|")
        assert way.strip() and caught_by.strip() and {each.strip() for each in when.split(",")} <= moments
    assert moments == {each.strip() for row in rows for each in row.split("|")[3].split(",")}
