"""The command line `floe-dagster`.

Every command imports what it needs when it runs: `--help` and a look at unchanged sources must not wait
for dbt or Dagster.
"""

from __future__ import annotations

from floe_dagster.cli.main import main

__all__ = ["main"]
