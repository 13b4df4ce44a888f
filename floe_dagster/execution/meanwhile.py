"""What a run needs once dbt has built, made ready while dbt builds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module

from floe_dagster.observability.column_lineage import column_lineage

_OF_PUBLICATIONS = ("floe_dagster.iceberg.overwriting", "pyiceberg.io.pyarrow", "requests")


@contextmanager
def publication_made_ready(dialect: str) -> Iterator[None]:
    """Import what publications need, while the block waits for dbt.

    A process that has published before has all of it. Where something cannot be imported, who needs it says so.

    Args:
        dialect: sqlglot's name of the SQL whose column lineage will be asked for.
    """
    # A daemon: a run that is killed in the block must not wait for it.
    thread = threading.Thread(target=_make_ready, args=[dialect], name="floe-meanwhile", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _make_ready(dialect: str) -> None:
    for module in _OF_PUBLICATIONS:
        with suppress(ImportError):
            import_module(module)
    with suppress(Exception):  # whatever is wrong there, the lineage of a model meets it again
        column_lineage("select 1 as one", {}, ["one"], dialect=dialect)
