"""`floe-dagster diff`."""

from __future__ import annotations

import argparse
from pathlib import Path

from floe_dagster.cli.terminal import colour, print_findings, print_json, product_dirs, table
from floe_dagster.compilation.bundle import BAKED_BUNDLE, Bundle, BundleError
from floe_dagster.compilation.changes import ProductView, product_changes
from floe_dagster.compilation.stages import validate_product


def run(options: argparse.Namespace) -> int:
    """Compare what was compiled last with what a compilation would give now; writes nothing."""
    exit_code = 0
    reports = []
    for product_dir in product_dirs(options.products):
        result = validate_product(product_dir, manifest=options.manifest)
        exit_code = max(exit_code, result.exit_code)
        before, after = _compiled(product_dir), ProductView.of_result(result)
        changes = product_changes(before, after) if after else []
        reports.append(
            {
                "product": result.name,
                "compiled": before is not None,
                "compiles": not result.blocked,
                "changes": [change.to_dict() for change in changes],
                "findings": [finding.to_dict() for finding in result.findings],
            }
        )
        if options.format == "json":
            continue
        print_findings([finding for finding in result.findings if finding.severity == "error"])
        if after is None:
            print(f"{colour(result.name, 'bold')}: cannot be compared until it compiles")
            continue
        state = "" if before else " (never compiled)"
        print(
            f"{colour(result.name, 'bold')}{state}: {len(changes)} change{'' if len(changes) == 1 else 's'}"
        )
        if changes:
            rows = [change.to_row() for change in changes]
            print(table(("area", "field", "compiled", "now"), rows) + "\n")
    if options.format == "json":
        print_json(reports)
    return exit_code


def _compiled(product_dir: Path) -> ProductView | None:
    try:
        return ProductView.of_bundle(Bundle.open(product_dir / "target" / BAKED_BUNDLE))
    except BundleError:
        return None
