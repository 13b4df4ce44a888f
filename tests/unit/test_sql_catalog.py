"""The catalog in a database."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from floe_dagster.home import FloeHome
from floe_dagster.iceberg import sql
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.errors import CatalogError
from floe_dagster.schemas.artifacts import PluginRef


def test_a_database_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libpq waits for ever for the answer to its first message; a listener that accepts and says nothing is such a database."""
    monkeypatch.setattr(sql, "CONNECT_SECONDS", 2)
    monkeypatch.setattr(sql.time, "sleep", lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        uri = f"postgresql+psycopg2://floe@127.0.0.1:{silent.getsockname()[1]}/catalog"
        with pytest.raises(CatalogError, match="cannot be opened"):
            open_catalog(PluginRef(type="sql", config={"uri": uri}), None, home=FloeHome(tmp_path))
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("uri", "bounded"),
    [
        ("sqlite:////tmp/a.db?timeout=60", "sqlite:////tmp/a.db?timeout=60"),
        ("postgresql://h/d?sslmode=require", "postgresql://h/d?sslmode=require&connect_timeout=10"),
        ("postgresql+psycopg2://h/d", "postgresql+psycopg2://h/d?connect_timeout=10"),
        ("postgresql://h/d?connect_timeout=3", "postgresql://h/d?connect_timeout=3"),
    ],
)
def test_who_bounds_the_time_himself_is_left_alone(uri: str, bounded: str) -> None:
    assert sql._bounded(uri) == bounded
