"""The page on policies says what the code does."""

from __future__ import annotations

from floe_dagster.policies.naming import NAMING_PATTERNS
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
