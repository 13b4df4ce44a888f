"""`floe-dagster validate`."""

from __future__ import annotations

import argparse

from floe_dagster.cli.command import Command
from floe_dagster.cli.options import add_format, add_manifest, add_products
from floe_dagster.cli.terminal import colour, counted, print_findings, print_json, product_dirs


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what `validate` takes."""
    add_products(parser)
    add_manifest(parser)
    parser.add_argument("--documents", action="store_true", help="look at the YAML documents alone")
    add_format(parser, "text", "json", "sarif")


def run(options: argparse.Namespace) -> int:
    """Look at each product without writing; print everything found."""
    from floe_dagster.definitions.compiling import validate_product

    exit_code = 0
    reports = []
    findings = []
    for product_dir in product_dirs(options.products):
        result = validate_product(product_dir, manifest=options.manifest, documents_only=options.documents)
        exit_code = max(exit_code, result.exit_code)
        findings += result.findings
        reports.append(
            {
                "product": result.name,
                "blocked": result.blocked,
                "exit_code": result.exit_code,
                "findings": [finding.to_dict() for finding in result.findings],
            }
        )
        if options.format == "text":
            print_findings(result.findings)
            errors = sum(finding.severity == "error" for finding in result.findings)
            warnings = sum(finding.severity == "warning" for finding in result.findings)
            verdict = colour("invalid", "error") if errors else colour("valid", "ok")
            scope = " (documents)" if options.documents else ""
            print(
                f"{verdict}  {result.name}{scope}: {counted(errors, 'error')}, {counted(warnings, 'warning')}"
            )
    if options.format == "json":
        print_json(reports)
    elif options.format == "sarif":
        from floe_dagster.policies.sarif import to_sarif

        print_json(to_sarif(findings))
    return exit_code


COMMAND = Command(
    text="find everything that compile would find; write nothing",
    examples="""
floe-dagster validate products/customer_360
floe-dagster validate --documents                      the YAML alone, without dbt
floe-dagster validate --format sarif > findings.sarif
""",
    run=run,
    add_options=add_options,
)
