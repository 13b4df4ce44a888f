"""Writes what docs/ says about the documents from their models: `make docs`."""

from __future__ import annotations

from pathlib import Path

from floe_dagster.schemas.field_tables import field_table
from floe_dagster.schemas.json_schema import write_json_schemas

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = {"manifest.md": "manifest", "product.md": "product"}
HEADING = "## Fields\n"


def fields_section(document: str) -> str:
    """Return the last section of a document's page."""
    return f"{HEADING}\nOf every field; `(duckdb)` stands for `type: duckdb`.\n\n{field_table(document)}\n"


def main() -> None:
    """Write the JSON Schemas and the tables of fields."""
    write_json_schemas(DOCS / "schemas")
    for page, document in PAGES.items():
        path = DOCS / page
        head = path.read_text(encoding="utf-8").partition(HEADING)[0]
        path.write_text(head + fields_section(document), encoding="utf-8")


if __name__ == "__main__":
    main()
