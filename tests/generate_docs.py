"""Writes what docs/ says about the documents from their models: `make docs`."""

from __future__ import annotations

from pathlib import Path

from floe_dagster.compilation.merge_rules import rules_table
from floe_dagster.policies import looks_at_table, policies_table
from floe_dagster.schemas.field_tables import field_table
from floe_dagster.schemas.json_schema import write_json_schemas

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = {"manifest.md": "manifest", "product.md": "product"}
HEADING = "## Fields\n"
RULES_PAGE = "manifest.md"
RULES_END = "## Secrets\n"
_RULES_BEGIN = "| field | rule | who wins |"
POLICIES_PAGE = "policies.md"
_POLICIES_BEGIN, _POLICIES_END = "| policy |", "A finding names the model"
_LOOKS_AT_BEGIN, _LOOKS_AT_END = "| looks at |", "A model in Python is a model"


def fields_section(document: str) -> str:
    """Return the last section of a document's page."""
    return f"{HEADING}\nOf every field; `(duckdb)` stands for `type: duckdb`.\n\n{field_table(document)}\n"


def with_rules(page: str) -> str:
    """Return the page on manifests with the current table of the rules that merge governance.

    Args:
        page: Its text; the table stands at the end of the section before `RULES_END`.
    """
    section, end, rest = page.partition(RULES_END)
    return f"{section.partition(_RULES_BEGIN)[0].rstrip()}\n\n{rules_table()}\n\n{end}{rest}"


def with_policies(page: str) -> str:
    """Return the page on policies with the current tables: what they ask for, and what they look at.

    Args:
        page: Its text.
    """
    head, _, rest = page.partition(_POLICIES_BEGIN)
    page = f"{head}{policies_table()}\n\n{_POLICIES_END}{rest.partition(_POLICIES_END)[2]}"
    head, _, rest = page.partition(_LOOKS_AT_BEGIN)
    return f"{head}{looks_at_table()}\n\n{_LOOKS_AT_END}{rest.partition(_LOOKS_AT_END)[2]}"


def main() -> None:
    """Write the JSON Schemas, the tables of fields, of the rules that merge governance, and of the policies."""
    write_json_schemas(DOCS / "schemas")
    for page, document in PAGES.items():
        path = DOCS / page
        head = path.read_text(encoding="utf-8").partition(HEADING)[0]
        path.write_text(head + fields_section(document), encoding="utf-8")
    rules = DOCS / RULES_PAGE
    rules.write_text(with_rules(rules.read_text(encoding="utf-8")), encoding="utf-8")
    policies = DOCS / POLICIES_PAGE
    policies.write_text(with_policies(policies.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
