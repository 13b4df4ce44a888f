"""`floe-dagster explain`."""

from __future__ import annotations

import argparse

from floe_dagster.cli.command import Command
from floe_dagster.cli.options import add_format, add_manifest, add_products
from floe_dagster.cli.terminal import colour, print_findings, print_json, product_dirs, table


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what `explain` takes."""
    add_products(parser)
    add_manifest(parser)
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    """Print which manifest counts, and who decided each governed field."""
    from floe_dagster.definitions.compiling import validate_product

    exit_code = 0
    reports = []
    for product_dir in product_dirs(options.products):
        result = validate_product(product_dir, manifest=options.manifest, documents_only=True)
        exit_code = max(exit_code, result.exit_code)
        governance = result.summary.get("governance")
        manifest = result.summary.get("manifest")
        reports.append({"product": result.name, "manifest": manifest, "governance": governance})
        if options.format == "json":
            continue
        print_findings(result.findings)
        if manifest is not None:
            replaced = f", in place of {manifest['replaces']}" if manifest["replaces"] else ""
            pinned = f"; pinned by {' and '.join(manifest['pinned_by'])}" if manifest["pinned_by"] else ""
            print(
                f"{colour(result.name, 'bold')}: manifest {manifest['file']}, which {manifest['decided_by']} names{replaced}\n"
                f"{colour(manifest['digest'] + pinned, 'dim')}"
            )
        if governance is None:
            continue
        print(f"{colour(result.name, 'bold')}: effective level {governance['effective_level']}")
        rows = [
            [
                decision["field"],
                decision["value"],
                decision["rule"],
                decision["decided_by"],
                f"{decision['file']}:{decision['line']}",
                ", ".join(f"{layer} wanted {value}" for layer, value in decision["overruled"]),
            ]
            for decision in governance["decisions"]
            if decision["field"] != "exemptions"
        ]
        print(table(("field", "value", "rule", "decided by", "place", "overruled"), rows) + "\n")
        exempt = [
            [
                each["policy"],
                each["model"],
                each.get("product", "all"),
                each["until"],
                each["owner"],
                each["reason"],
            ]
            for decision in governance["decisions"]
            if decision["field"] == "exemptions"
            for each in decision["value"]
        ]
        if exempt:
            print("exemptions:")
            print(table(("policy", "model", "product", "until", "owner", "reason"), exempt) + "\n")
    if options.format == "json":
        print_json(reports)
    return exit_code


COMMAND = Command(
    text="which manifest counts, who decided each governed field, and who was overruled",
    examples="floe-dagster explain products/customer_360",
    run=run,
    add_options=add_options,
)
