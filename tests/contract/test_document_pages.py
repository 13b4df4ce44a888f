"""The pages on the two documents say what the models say."""

from __future__ import annotations

import pytest

from floe_dagster.compilation.governance import STRENGTH
from tests.conftest import ROOT
from tests.generate_docs import HEADING, PAGES, fields_section


@pytest.mark.parametrize("page", PAGES)
def test_the_table_of_fields_is_current(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert HEADING + text.partition(HEADING)[2] == fields_section(PAGES[page]), "run `make docs`"


def test_every_governed_field_has_its_rule_of_merging() -> None:
    rules = (
        (ROOT / "docs" / "manifest.md").read_text().partition("| field | who wins |")[2].partition("##")[0]
    )
    named = {
        name.strip().strip("`") for row in rules.splitlines()[1:-1] for name in row.split("|")[1].split(",")
    }
    assert named - {"", "---"} == set(STRENGTH)
