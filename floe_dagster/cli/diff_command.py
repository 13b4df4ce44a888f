"""`floe-dagster diff`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from floe_dagster.cli.command import Command
from floe_dagster.cli.options import add_format, add_manifest, add_products
from floe_dagster.cli.terminal import colour, counted, print_findings, print_json, product_dirs, table

if TYPE_CHECKING:
    from floe_dagster.compilation.changes import Change, ProductView
    from floe_dagster.compilation.engine_change import Consequence
    from floe_dagster.compilation.result import CompileResult
    from floe_dagster.home import FloeHome
    from floe_dagster.iceberg.declared import TypeDifference

SHOWN_NAMES = 6


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what `diff` takes."""
    add_products(parser)
    add_manifest(parser)
    parser.add_argument(
        "--published",
        action="store_true",
        help="ask the catalog, too: which declared types the published tables cannot take",
    )
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    """Compare what was compiled last with what a compilation would give now; writes nothing."""
    from floe_dagster.compilation.changes import ProductView, product_changes
    from floe_dagster.compilation.engine_change import engine_consequences
    from floe_dagster.definitions.compiling import validate_product
    from floe_dagster.home import FloeHome
    from floe_dagster.iceberg.errors import CatalogError

    exit_code = 0
    reports = []
    for product_dir in product_dirs(options.products):
        result = validate_product(product_dir, manifest=options.manifest)
        exit_code = max(exit_code, result.exit_code)
        before, after = _compiled(product_dir), ProductView.of_result(result)
        changes = product_changes(before, after) if after else []
        engine = engine_consequences(before.build if before else None, after.build if after else None)
        types: Sequence[TypeDifference] | None = None
        problem = None
        try:
            if options.published and after is not None:
                types = _types(result, FloeHome.locate(product_dir))
        except CatalogError as error:
            problem, exit_code = str(error), max(exit_code, 1)
        reports.append(
            {
                "product": result.name,
                "compiled": before is not None,
                "compiles": not result.blocked,
                "changes": [change.to_dict() for change in changes],
                "engine": [each.to_dict() for each in engine],
                **({"types": [asdict(each) for each in types]} if types is not None else {}),
                **({"error": problem} if problem else {}),
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
        print(f"{colour(result.name, 'bold')}{state}: {counted(len(changes), 'change')}")
        _print(changes, engine, types)
        if problem:
            print(f"error: {problem}")
    if options.format == "json":
        print_json(reports)
    return exit_code


def _print(
    changes: Sequence[Change], engine: Sequence[Consequence], types: Sequence[TypeDifference] | None
) -> None:
    if changes:
        rows = [change.to_row() for change in changes]
        print(table(("area", "field", "compiled", "now"), rows) + "\n")
    if engine:
        print(colour("What the change of engine means:", "bold"))
        for each in engine:
            print(f"  {each.topic:9}{_shown(each.names)}{each.text}")
        print()
    if types:
        print(
            colour(
                "Types that Iceberg cannot change to, so that nothing of the table would be published:",
                "bold",
            )
        )
        columns = [(each.table, each.column, each.published, each.declared) for each in types]
        print(table(("table", "column", "published", "declared"), columns) + "\n")
    elif types is not None:
        print("Every type that is declared fits what is published; others are found at publication\n")


def _shown(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return f"{', '.join(names[:SHOWN_NAMES])}{more}: "


def _types(result: CompileResult, home: FloeHome) -> list[TypeDifference]:
    from floe_dagster.iceberg.catalogs import open_catalog
    from floe_dagster.iceberg.declared import type_differences

    assert result.artifact is not None and result.index is not None
    plugins = result.artifact.plugins
    assert plugins is not None
    catalog = open_catalog(plugins.catalog, plugins.storage, home=home)
    return type_differences(catalog, result.slug, result.index.assets)


def _compiled(product_dir: Path) -> ProductView | None:
    from floe_dagster.compilation.bundle import BAKED_BUNDLE, Bundle, BundleError
    from floe_dagster.compilation.changes import ProductView

    try:
        return ProductView.of_bundle(Bundle.open(product_dir / "target" / BAKED_BUNDLE))
    except BundleError:
        return None


COMMAND = Command(
    text="what a compilation would change for consumers and for governance, and what another engine means",
    examples="""
floe-dagster diff products/customer_360
floe-dagster diff --manifest manifests/demo.yaml   what becomes of tables, views and state on another platform
""",
    run=run,
    add_options=add_options,
)
