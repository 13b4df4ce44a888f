"""`floe-dagster compile`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from floe_dagster.cli.command import Command
from floe_dagster.cli.options import add_format, add_manifest, add_products
from floe_dagster.cli.terminal import colour, counted, print_findings, print_json, product_dirs

if TYPE_CHECKING:
    from floe_dagster.compilation.result import CompileResult


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what `compile` takes."""
    add_products(parser)
    add_manifest(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write to DIR/<product_slug>/ instead of the product's target/",
    )
    parser.add_argument(
        "--generate-definitions",
        action="store_true",
        help="also write definitions.py and __init__.py into the product's folder",
    )
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    """Compile each product; a broken one does not stop the others."""
    from floe_dagster.compilation.outputs import outputs_current, write_outputs
    from floe_dagster.definitions.compiling import compile_product
    from floe_dagster.home import FloeHome

    exit_code = 0
    reports = []
    for product_dir in product_dirs(options.products):
        home = FloeHome.locate(product_dir)
        begun = time.perf_counter()
        result = compile_product(product_dir, manifest=options.manifest, home=home)
        if result.bundle_path is not None:
            output_dir = options.output / result.slug if options.output else product_dir / "target"
            if not outputs_current(output_dir, result.digest, home):
                write_outputs(result.bundle_path, output_dir, home)
            if options.generate_definitions:
                _generate_definitions(product_dir)
        exit_code = max(exit_code, result.exit_code)
        if options.format == "json":
            reports.append(_report(result))
        else:
            _print(result, time.perf_counter() - begun)
    if options.format == "json":
        print_json(reports)
    return exit_code


def _generate_definitions(product_dir: Path) -> None:
    from floe_dagster.cli.scaffold import write_definitions

    written, kept = write_definitions(product_dir)
    for path in written:
        print(f"wrote {path}", file=sys.stderr)
    for path in kept:
        print(f"{path} holds something of its own and was left as it is", file=sys.stderr)


def _report(result: CompileResult) -> dict[str, object]:
    return {
        "product": result.name,
        "digest": result.digest,
        "blocked": result.blocked,
        "unchanged": result.unchanged,
        "exit_code": result.exit_code,
        "stages": [{"name": stage.name, "seconds": round(stage.seconds, 4)} for stage in result.stages],
        "findings": [finding.to_dict() for finding in result.findings],
    }


def _print(result: CompileResult, seconds: float) -> None:
    print_findings(result.findings)
    warnings = sum(finding.severity == "warning" for finding in result.findings)
    errors = sum(finding.severity == "error" for finding in result.findings)
    counts = f"{counted(errors, 'error')}, {counted(warnings, 'warning')}"
    if result.blocked:
        last = (
            "the last good state stays"
            if Path(result.product_dir, "target").exists()
            else "nothing was written"
        )
        print(f"{colour('blocked', 'error')}    {result.name}: {counts}; {last}")
    elif result.unchanged:
        print(f"{colour('unchanged', 'dim')}  {result.name} ({result.digest[7:19]}): {counts}")
    else:
        stages = " ".join(f"{stage.name} {stage.seconds:.2f}s" for stage in result.stages)
        print(
            f"{colour('compiled', 'ok')}   {result.name} ({result.digest[7:19]}) in {seconds:.1f}s: {counts}"
            f"\n           {colour(stages, 'dim')}"
        )
    sys.stdout.flush()


COMMAND = Command(
    text="compile products; writes target/compiled_artifacts.json and target/manifest.json",
    examples="""
floe-dagster compile                                   every product below products/
floe-dagster compile products/customer_360
floe-dagster compile --manifest manifests/demo.yaml --output build
""",
    run=run,
    add_options=add_options,
)
