"""The pages on the two documents say what the models say."""

from __future__ import annotations

import pytest

from floe_dagster.compilation.merge_rules import governance_rules
from floe_dagster.schemas.artifacts import ResolvedGovernance
from tests.conftest import ROOT
from tests.generate_docs import HEADING, PAGES, RULES_PAGE, fields_section, with_rules


@pytest.mark.parametrize("page", PAGES)
def test_the_table_of_fields_is_current(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert HEADING + text.partition(HEADING)[2] == fields_section(PAGES[page]), "run `make docs`"


def test_the_table_of_rules_is_current() -> None:
    text = (ROOT / "docs" / RULES_PAGE).read_text(encoding="utf-8")
    assert text == with_rules(text), "run `make docs`"
    # An older table that stands elsewhere on the page would say something else.
    assert text.count("who wins |") == 1


@pytest.mark.parametrize("field", ResolvedGovernance.model_fields)
def test_the_artifact_says_of_a_governed_field_what_its_rule_says(field: str) -> None:
    said = ResolvedGovernance.model_fields[field].description or ""
    assert ("the nearest layer's" in said) == (governance_rules()[field].name == "nearest")
