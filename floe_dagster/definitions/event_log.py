"""Dagster's consolidated SQLite event log, with connections that are kept.

Dagster makes a new engine and a new connection for each statement, so each event compiles its SQL and
opens the file again: two thirds of the time that a run of many models spends on events.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import sqlalchemy as db

from floe_dagster.definitions.dagster_private import ConsolidatedSqliteEventLogStorage

BUSY_TIMEOUT_SECONDS = 60


class PooledSqliteEventLogStorage(ConsolidatedSqliteEventLogStorage):
    """The same file and the same tables; other processes may use the stock class beside it."""

    @cached_property
    def _engine(self) -> db.Engine:
        engine = db.create_engine(self._conn_string, connect_args={"timeout": BUSY_TIMEOUT_SECONDS})

        @db.event.listens_for(engine, "connect")
        def relax(connection: Any, _record: Any) -> None:
            # With a write-ahead log a crash of the process loses nothing; only a power cut may lose the
            # last events, never the file.
            connection.execute("PRAGMA synchronous=NORMAL")

        return engine

    @contextmanager
    def _connect(self) -> Iterator[db.Connection]:
        with self._engine.begin() as connection:
            yield connection

    def dispose(self) -> None:
        """Close the connections."""
        super().dispose()  # type: ignore[no-untyped-call]  # Dagster's own has no types
        if "_engine" in self.__dict__:
            self._engine.dispose()
