"""`floe-dagster diff`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from floe_dagster.cli.terminal import colour, print_findings, print_json, product_dirs, table
from floe_dagster.compilation.bundle import BAKED_BUNDLE, Bundle, BundleError
from floe_dagster.compilation.changes import document_changes
from floe_dagster.compilation.stages import validate_product

_UNINTERESTING = ("metadata.compiled_at", "metadata.source_hash")


def run(options: argparse.Namespace) -> int:
    """Compare the last compiled artifact with what a compilation would give now; writes nothing."""
    exit_code = 0
    reports = []
    for product_dir in product_dirs(options.products):
        result = validate_product(product_dir, manifest=options.manifest)
        exit_code = max(exit_code, result.exit_code)
        before = _compiled(product_dir)
        after = result.artifact.model_dump(mode="json") if result.artifact else None
        changes = [
            {"path": path, "area": _area(path), "before": old, "after": new}
            for path, old, new in (document_changes(before or {}, after) if after else ())
            if path not in _UNINTERESTING
        ]
        reports.append({"product": result.name, "compiled": before is not None, "changes": changes})
        if options.format == "json":
            continue
        print_findings([finding for finding in result.findings if finding.severity == "error"])
        state = "" if before else " (never compiled)"
        print(f"{colour(result.name, 'bold')}{state}: {len(changes)} changes")
        if changes:
            rows = [[change[name] for name in ("area", "path", "before", "after")] for change in changes]
            print(table(("area", "field", "current", "new"), rows) + "\n")
    if options.format == "json":
        print_json(reports)
    return exit_code


def _compiled(product_dir: Path) -> dict[str, Any] | None:
    try:
        return Bundle.open(product_dir / "target" / BAKED_BUNDLE).artifact().model_dump(mode="json")
    except BundleError:
        return None


def _area(path: str) -> str:
    if path.startswith(("governance", "enforcement_result")):
        return "governance"
    return (
        "consumers"
        if path.startswith(("transforms", "identity", "plugins.catalog", "plugins.storage"))
        else "platform"
    )
