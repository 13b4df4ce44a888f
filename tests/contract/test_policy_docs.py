"""The page on policies says what the code does."""

from __future__ import annotations

from pathlib import Path

from floe_dagster.policies import POLICIES
from floe_dagster.policies.rules import NAMING_PATTERNS, TIER_OF_FOLDER

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "policies.md").read_text(encoding="utf-8")


def test_every_policy_has_its_row() -> None:
    section = PAGE.partition("## The nine")[2].partition("###")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| `")]
    assert rows == [f"`{policy.name}`" for policy in POLICIES]


def test_the_patterns_are_those_of_the_code() -> None:
    for name, pattern in NAMING_PATTERNS.items():
        assert f"| `{name}` | `{pattern.replace('|', chr(92) + '|')}` |" in PAGE


def test_every_folder_with_a_tier_is_named() -> None:
    assert all(f"`{folder}`" in PAGE for folder in TIER_OF_FOLDER)
