"""The three products on real services: start them, bootstrap, check, run, and read every table back twice.

    python deploy/services/demo.py

PyIceberg reads through the catalog; DuckDB reads the Parquet files of the current snapshot straight from MinIO with its
own reader. Both have to hold exactly the rows that the run left in the product's DuckDB file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import control

FOLDER = control.ROOT / ".floe" / "services"


def main() -> int:
    """Run the demo; 0 where every table is the same in all three."""
    from floe_dagster.cli import main as floe

    tools = control.ROOT / ".floe" / "tools"
    try:
        control.build(tools)
        control.start(FOLDER, tools)
    except control.ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    os.environ |= control._read_environment(FOLDER)
    os.environ["FLOE_HOME"] = str(FOLDER / "home")
    os.environ["DAGSTER_HOME"] = str(FOLDER / "home" / "dagster")
    os.chdir(control.ROOT)
    manifest = str(FOLDER / "manifest.yaml")
    print(f"settings for a shell of yours: {FOLDER / 'environment'}, manifest: {manifest}")
    if code := floe(["platform", "bootstrap", "--manifest", manifest]):
        return int(code)
    # From here on nobody needs the administrators' passwords.
    for name in ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"):
        os.environ.pop(name, None)
    if code := floe(["platform", "check", "--manifest", manifest]):
        return int(code)
    run = subprocess.run(
        [str(Path(sys.executable).with_name("floe-dagster")), "run", "--manifest", manifest], check=False
    )
    if run.returncode:
        return run.returncode
    return _read_back(Path(manifest))


def _read_back(manifest: Path) -> int:
    import yaml

    from floe_dagster.home import FloeHome
    from floe_dagster.iceberg.catalogs import open_catalog
    from floe_dagster.schemas.artifacts import PluginRef

    plugins = yaml.safe_load(manifest.read_text())["plugins"]
    home = FloeHome(Path(os.environ["FLOE_HOME"]))
    catalog = open_catalog(PluginRef(**plugins["catalog"]), PluginRef(**plugins["storage"]), home=home)
    print(f"\n{'table':42} {'rows':>7}  DuckDB file = PyIceberg = DuckDB on MinIO")
    different = 0
    for product in sorted(control.ROOT.glob("products/*/floe.yaml")):
        slug = product.parent.name
        for identifier in sorted(catalog.list_tables(slug)):
            rows, equal = read_back(catalog, slug, identifier[-1], home.duckdb_dir / f"{slug}.duckdb")
            different += not equal
            print(f"{slug + '.' + identifier[-1]:42} {rows:>7}  {'yes' if equal else 'NO'}")
    return 1 if different else 0


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

        class Store(ArrowFSWrapper):
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
