"""`floe-dagster schema`."""

from __future__ import annotations

import argparse

from floe_dagster.cli.terminal import print_json


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
