"""`floe-dagster show`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from floe_dagster.cli.command import Command
from floe_dagster.cli.options import add_format
from floe_dagster.cli.terminal import print_findings, print_json, product_dirs, table


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what `show` takes."""
    parser.add_argument("table", metavar="PRODUCT.MODEL", help="for example customer_360.mart_customer_360")
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="rows to print (default 10)")
    parser.add_argument(
        "--product-dir", type=Path, metavar="DIR", help="the product's folder, where it is elsewhere"
    )
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    """Print a table's first rows and its snapshots."""
    from floe_dagster.compilation.bundle import BAKED_BUNDLE, Bundle, BundleError
    from floe_dagster.compilation.product_folder import missing_product
    from floe_dagster.compilation.sources import product_slug
    from floe_dagster.home import FloeHome

    slug, _dot, model = options.table.partition(".")
    if not slug or not model:
        print(
            f"error: {options.table!r} is no PRODUCT.MODEL, for example customer_360.mart_customer_360",
            file=sys.stderr,
        )
        return 2
    if options.product_dir and (finding := missing_product(options.product_dir)):
        print_findings([finding])
        return 2
    folders = [options.product_dir] if options.product_dir else product_dirs([])
    slug = slug.replace("-", "_")
    product_dir = next((Path(folder) for folder in folders if product_slug(Path(folder)) == slug), None)
    if product_dir is None:
        known = ", ".join(product_slug(Path(folder)) for folder in folders)
        print(f"error: there is no product {slug!r}; there are: {known}", file=sys.stderr)
        return 2
    home = FloeHome.locate(product_dir)
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    from floe_dagster.iceberg.catalogs import open_catalog
    from floe_dagster.iceberg.errors import CatalogError, catalog_error, is_remote_failure
    from floe_dagster.iceberg.show import show_table

    try:
        bundle = Bundle.open(product_dir / "target" / BAKED_BUNDLE)
        index, plugins = bundle.index(), bundle.artifact().plugins
        catalog = open_catalog(
            plugins.catalog if plugins else None, plugins.storage if plugins else None, home=home
        )
        view = show_table(catalog, slug, model, options.limit)
    except BundleError:
        print(f"error: {slug} is not compiled; run `floe-dagster compile {product_dir}`", file=sys.stderr)
        return 2
    except CatalogError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (NoSuchTableError, NoSuchNamespaceError):
        from floe_dagster.cli.missing_table import why_missing

        names = (
            sorted(name for _namespace, name in catalog.list_tables(slug))
            if catalog.namespace_exists(slug)
            else []
        )
        why = why_missing(model, bundle, product_dir, home, published=names)
        print(f"error: there is no table {slug}.{model}: {why}{_published(names)}", file=sys.stderr)
        return 2
    except Exception as error:
        if not is_remote_failure(error):
            raise
        print(f"error: {catalog_error(error, f'{slug}.{model} cannot be read')}", file=sys.stderr)
        return 2
    if not any(asset.name == model and asset.published for asset in index.assets):
        print(
            f"note: {model} is not published any more, as {slug} was compiled last: this table is of an earlier run",
            file=sys.stderr,
        )
    if options.format == "json":
        rows = [dict(zip(view.columns, row, strict=True)) for row in view.rows]
        print_json(
            {"table": f"{slug}.{model}", "location": view.location, "rows": rows, "snapshots": view.snapshots}
        )
        return 0
    print(table(view.columns, [[_cell(cell) for cell in row] for row in view.rows]))
    print(f"\n{view.location}\n")
    fields = ("snapshot", "committed", "operation", "rows", "engine", "run")
    print(table(fields, [[entry[name] for name in fields] for entry in view.snapshots], right=(3,)))
    return 0


def _published(names: Sequence[str]) -> str:
    return f"\n    there are: {', '.join(names)}" if names else ""


def _cell(value: object) -> object:
    if isinstance(value, dict | list):
        return json.dumps(value, default=str, ensure_ascii=False)
    return value


COMMAND = Command(
    text="print rows and snapshots of a published table; where there is none, why",
    examples="floe-dagster show customer_360.mart_customer_360",
    run=run,
    add_options=add_options,
)
