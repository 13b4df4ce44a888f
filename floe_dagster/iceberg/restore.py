"""Brings a published table back into DuckDB, where its file was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from floe_dagster.iceberg.reading import read_tasks
from floe_dagster.iceberg.relation import RelationName
from floe_dagster.iceberg.types import quoted

if TYPE_CHECKING:
    import duckdb
    from pyiceberg.catalog import Catalog


def restore_relation(
    con: duckdb.DuckDBPyConnection, relation: RelationName, *, catalog: Catalog, namespace: str, table: str
) -> int:
    """Create `relation` in DuckDB from the current snapshot of an Iceberg table.

    The table is streamed in batches, so memory stays bounded. A failure leaves no relation.

    Args:
        con: An open connection that may write.
        relation: What to create; must not exist.
        catalog: From `open_catalog`.
        namespace: Iceberg namespace.
        table: Name of the table.

    Returns:
        The number of rows.
    """
    loaded = catalog.load_table((namespace, table))
    reader = read_tasks(loaded.metadata, loaded.io, loaded.scan().plan_files())
    con.register("floe_restored", reader)
    try:
        con.execute(f"create schema if not exists {quoted(relation.database)}.{quoted(relation.schema)}")
        con.execute(f"create table {relation.sql()} as select * from floe_restored")
    finally:
        con.unregister("floe_restored")
    # All rows are fetched: DuckDB keeps a connection busy until a result is read to its end.
    return int(con.execute(f"select count(*) from {relation.sql()}").fetchall()[0][0])
