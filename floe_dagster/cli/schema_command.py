"""`floe-dagster schema`."""

from __future__ import annotations

import argparse

from floe_dagster.cli.terminal import print_json


def run(options: argparse.Namespace) -> int:
    """Print one JSON Schema, or write all of them."""
    from floe_dagster.schemas.json_schema import json_schemas, write_json_schemas

    if options.write:
        write_json_schemas(options.write)
        print(f"wrote the JSON Schemas to {options.write}")
    else:
        print_json(json_schemas()[options.document])
    return 0
