"""Drops the tables of a product that is no more, their files and their namespace.

python drop_tables.py [--yes] [--manifest FILE] PRODUCT

Without --yes it only lists them. A table that belongs to another product stays, and its namespace with it.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from floe_dagster.compilation.builder import resolved_plugins
from floe_dagster.compilation.inheritance import load_manifest_chain
from floe_dagster.home import FloeHome, find_project_root
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.maintenance import drop_retired, retired_tables


def main() -> int:
    """List or drop the tables; 1 where some stay that should go."""
    parser = argparse.ArgumentParser(
        prog="drop_tables.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("product", metavar="PRODUCT", help="its name, as floe.yaml had it: customer-360")
    parser.add_argument("--manifest", type=Path, default=os.environ.get("FLOE_MANIFEST"))
    parser.add_argument("--yes", action="store_true", help="drop them; nothing brings them back")
    options = parser.parse_args()
    if not options.manifest:
        parser.error("which platform? Set FLOE_MANIFEST, or give --manifest")
    path = Path(os.path.abspath(options.manifest))
    merged = load_manifest_chain(path, root=find_project_root(path)).merged
    if merged is None:
        parser.error(f"{path} has errors; `floe-dagster platform check` names them")
    plugins = resolved_plugins(merged)
    catalog = open_catalog(plugins.catalog, plugins.storage, home=FloeHome.locate(path))
    namespace = options.product.replace("-", "_")
    found = retired_tables(catalog, namespace, set())
    if not found:
        print(f"{namespace} has no tables")
    stay = 0
    for table in found:
        name, owner = table["table"], table["product"]
        if owner != options.product:
            print(
                f"{namespace}.{name} belongs to {owner or 'nobody that is known'}: it stays", file=sys.stderr
            )
            stay += 1
        elif options.yes:
            gone = drop_retired(catalog, namespace, name, options.product)
            stay += gone["not_removed"]
            print(f"dropped {namespace}.{name}: {gone['files']} files, {gone['not_removed']} of them stay")
        else:
            print(f"{namespace}.{name}: {table['rows']:,} rows, last published {table['last_published']}")
    if options.yes and not stay and catalog.namespace_exists(namespace):
        catalog.drop_namespace(namespace)
        print(f"dropped the namespace {namespace}")
    return 1 if stay else 0


if __name__ == "__main__":
    raise SystemExit(main())
