"""Where a command's Dagster keeps its runs: `DAGSTER_HOME`, or a folder under `FLOE_HOME` where nobody says otherwise."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from floe_dagster.atomic import write_atomically
from floe_dagster.home import FloeHome, find_project_root

VARIABLE = "DAGSTER_HOME"
_SETTINGS = """\
# Written by floe-dagster where nobody had said how Dagster keeps its runs; yours to change.
# One SQLite file with connections that are kept: Dagster's own default opens a file anew for each event.
event_log_storage:
  module: floe_dagster.definitions.event_log
  class: PooledSqliteEventLogStorage
  config:
    base_dir:
      env: DAGSTER_HOME
"""


def dagster_home(home: FloeHome) -> Path:
    """Return the folder, be it there or not.

    Args:
        home: The writable folder.
    """
    return Path(os.environ.get(VARIABLE) or home.path / "dagster")


@contextmanager
def named_dagster_home(home: FloeHome) -> Iterator[Path]:
    """Let this process and its children find the folder, for as long as the context lasts; gives the folder.

    Args:
        home: The writable folder.
    """
    folder, named = dagster_home(home), os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(folder)
    try:
        yield folder
    finally:
        if named is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = named


def make_dagster_home(home: FloeHome, product_dir: Path) -> None:
    """Make the folder; where it is ours, with the project's own settings of an instance, or a quick event log.

    Args:
        home: The writable folder.
        product_dir: Of a product of the project.
    """
    folder = dagster_home(home)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "dagster.yaml"
    if os.environ.get(VARIABLE) or file.exists():
        return
    settings = find_project_root(product_dir) / "deploy" / "local" / "dagster.yaml"
    if settings.is_file():
        shutil.copyfile(settings, file)
    else:
        write_atomically(file, _SETTINGS.encode())
