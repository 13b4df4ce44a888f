"""`floe-dagster schema`."""

from __future__ import annotations

import argparse
from pathlib import Path

from floe_dagster.cli.command import Command
from floe_dagster.cli.terminal import print_json


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what `schema` takes."""
    parser.add_argument(
        "document", nargs="?", choices=("manifest", "product", "compiled_artifacts"), default="product"
    )
    parser.add_argument("--format", choices=("json", "markdown"), default="json", help="of the output")
    parser.add_argument("--write", type=Path, metavar="DIR", help="write all three into DIR")


def run(options: argparse.Namespace) -> int:
    """Print one JSON Schema or its table of fields, or write all schemas."""
    from floe_dagster.schemas.field_tables import field_table
    from floe_dagster.schemas.json_schema import json_schemas, write_json_schemas

    if options.write:
        write_json_schemas(options.write)
        print(f"wrote the JSON Schemas to {options.write}")
    elif options.format == "markdown":
        print(field_table(options.document))
    else:
        print_json(json_schemas()[options.document])
    return 0


COMMAND = Command(
    text="print the JSON Schema of a document",
    examples="""
floe-dagster schema product
floe-dagster schema manifest --format markdown           a table of its fields
floe-dagster schema --write docs/schemas
""",
    run=run,
    add_options=add_options,
)
