"""The three products on real services: start them, bootstrap, check, run, and read every table back twice.

    python -m deploy.services.demo

PyIceberg reads through the catalog; DuckDB reads the Parquet files of the current snapshot straight from MinIO with its
own reader. Both have to hold exactly the rows that the run left in the product's DuckDB file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.services import control, programs
from deploy.services.environment import read_environment

FOLDER = control.ROOT / ".floe" / "services"
MANIFEST = FOLDER / "manifest.yaml"


def main() -> int:
    """Run the demo; 0 where every table is the same in all three."""
    from floe_dagster.cli import main as floe

    try:
        if code := prepare(FOLDER / "home"):
            return code
    except programs.ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"settings for a shell of yours: {FOLDER / 'environment'}, manifest: {MANIFEST}")
    if code := floe(["platform", "check", "--manifest", str(MANIFEST)]):
        return int(code)
    if code := subprocess.run(run_command(MANIFEST), check=False).returncode:
        return code
    catalog, duckdb = open_tables(MANIFEST), FOLDER / "home" / "duckdb"
    print(f"\n{'table':42} {'rows':>7}  DuckDB file = PyIceberg = DuckDB on MinIO")
    return tell_tables(
        catalog, lambda slug, table: read_back(catalog, slug, table, duckdb / f"{slug}.duckdb")
    )


def prepare(home: Path) -> int:
    """Start MinIO and the catalog, go into the project, and make what the products need; 0 where all is there.

    Args:
        home: `FLOE_HOME` of this process from then on, with Dagster's below it.

    Raises:
        ServiceError: A service cannot be had.
    """
    from floe_dagster.cli import main as floe

    tools = control.ROOT / ".floe" / "tools"
    control.build(tools)
    control.start(FOLDER, tools)
    os.environ |= read_environment(FOLDER)
    os.environ["FLOE_HOME"] = str(home)
    os.environ["DAGSTER_HOME"] = str(home / "dagster")
    os.chdir(control.ROOT)
    code = int(floe(["platform", "bootstrap", "--manifest", str(MANIFEST)]))
    # From here on nobody needs the administrators' passwords.
    for name in ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"):
        os.environ.pop(name, None)
    return code


def run_command(manifest: Path) -> list[str]:
    """Return the command that runs all products."""
    return [str(Path(sys.executable).with_name("floe-dagster")), "run", "--manifest", str(manifest)]


def open_tables(manifest: Path) -> Any:
    """Open the catalog of a manifest."""
    import yaml

    from floe_dagster.home import FloeHome
    from floe_dagster.iceberg.catalogs import open_catalog
    from floe_dagster.schemas.artifacts import PluginRef

    plugins = yaml.safe_load(manifest.read_text())["plugins"]
    home = FloeHome(Path(os.environ["FLOE_HOME"]))
    return open_catalog(PluginRef(**plugins["catalog"]), PluginRef(**plugins["storage"]), home=home)


def tell_tables(catalog: Any, compare: Callable[[str, str], tuple[int, bool]]) -> int:
    """Print a line per published table; 0 where there are some, and all are equal.

    Args:
        catalog: From `open_tables`.
        compare: Gives the number of rows of a table, and whether all who read it see the same.
    """
    found = []
    for product in sorted(control.ROOT.glob("products/*/floe.yaml")):
        slug = product.parent.name
        for identifier in sorted(catalog.list_tables(slug)):
            rows, equal = compare(slug, identifier[-1])
            found.append(equal)
            print(f"{slug + '.' + identifier[-1]:42} {rows:>7}  {'yes' if equal else 'NO'}")
    return 0 if found and all(found) else 1


def read_back(catalog: Any, namespace: str, table: str, file: Path) -> tuple[int, bool]:
    """Compare a published table, read by two engines, with what the run left in DuckDB, row by row.

    Args:
        catalog: From `open_catalog`.
        namespace: Of the product.
        table: Name of table and model.
        file: The product's DuckDB file.

    Returns:
        The number of rows, and whether all three are equal.
    """
    import duckdb
    from fsspec.implementations.arrow import ArrowFSWrapper

    loaded = catalog.load_table((namespace, table))
    names = ", ".join(f'"{column.name}"' for column in loaded.schema().fields)
    with duckdb.connect(str(file), read_only=True) as con:
        by_iceberg = loaded.scan().to_arrow()
        con.register("by_iceberg", by_iceberg)
        scheme, netloc, _path = loaded.io.parse_location(loaded.location())

        class Store(ArrowFSWrapper):  # type: ignore[misc]  # fsspec has no types
            protocol = "floe"

            @classmethod
            def _strip_protocol(cls, path: str) -> str:
                return path.removeprefix("floe://")

        con.register_filesystem(Store(loaded.io.fs_by_scheme(scheme, netloc)))
        paths = ["floe://" + task.file.file_path.partition("://")[2] for task in loaded.scan().plan_files()]
        by_duckdb = (
            f"select {names} from read_parquet({paths!r}, union_by_name = true, hive_partitioning = false)"
        )
        own = f'select {names} from main."{table}"'
        ways = (own, f"select {names} from by_iceberg", by_duckdb if paths else f"{own} limit 0")
        counts = {con.execute(f"select count(*) from ({way})").fetchall()[0][0] for way in ways}
        differences = [
            con.execute(f"select count(*) from (({one}) except all ({other}))").fetchall()[0][0]
            for one in ways
            for other in ways
            if one != other
        ]
        return int(by_iceberg.num_rows), len(counts) == 1 and not any(differences)


if __name__ == "__main__":
    raise SystemExit(main())
