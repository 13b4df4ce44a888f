"""One dbt command in this process, which may begin with a manifest that dbt has parsed elsewhere.

dbt's documented door for that is `dbtRunner(manifest=…)`
(https://docs.getdbt.com/reference/programmatic-invocations): it then reads no file of the project's models.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from floe_dagster.compilation.dbt_batches import continue_batches

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest

WRITE, NOT_WRITE = "--write-json", "--no-write-json"
NOT_USABLE = "ParseStateNotUsable"
"""Name of the event, in the form of dbt's own, that says why dbt parses all the same."""


def run_command(args: Sequence[str], state: str | None = None) -> int:
    """Run a dbt command as `dbt ARGUMENT…` would, and return its exit code.

    Args:
        args: Arguments of the command, without the program.
        state: Path of what `parse_state` made of a parse; without one, and where it cannot be read, dbt parses.
    """
    sys.argv = ["dbt", *args]
    continue_batches()
    if state is not None:
        try:
            manifest = load_manifest(Path(state).read_bytes())
        except Exception as error:  # whatever is wrong with it, dbt can parse
            _say_that_dbt_parses(error)
        else:
            return _run_with(manifest, args)
    from dbt.cli.main import cli

    try:
        cli(list(args), prog_name="dbt")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def load_manifest(content: bytes) -> Manifest:
    """Return the manifest as dbt has it after a parse.

    Args:
        content: See `run_command`.
    """
    from dbt.contracts.graph.manifest import Manifest
    from dbt.contracts.graph.nodes import SeedNode

    # dbt's own reader of its dates in msgpack; documented nowhere, so a test holds that it is there.
    from dbt.parser.manifest import extended_mashumuro_decoder

    manifest: Manifest = Manifest.from_msgpack(content, decoder=extended_mashumuro_decoder)
    # What dbt does besides where it finds that no file has changed (`ManifestLoader.load`, `get_full_manifest`).
    manifest.build_parent_and_child_maps()
    manifest.build_group_map()
    for node in manifest.nodes.values():
        if isinstance(node, SeedNode) and node.root_path:
            node.root_path = os.path.abspath(node.root_path)
    manifest.build_flat_graph()
    return manifest


def _run_with(manifest: Manifest, args: Sequence[str]) -> int:
    from dbt.artifacts.schemas.run import RunExecutionResult
    from dbt.cli.main import dbtRunner

    # dbt would write its manifest and its graph, too, which takes as long as a few models and which nobody reads.
    writes = WRITE in args
    outcome = dbtRunner(manifest=manifest).invoke([*args, NOT_WRITE] if writes else [*args])
    if writes and isinstance(outcome.result, RunExecutionResult):
        outcome.result.write(os.path.join(os.environ["DBT_TARGET_PATH"], "run_results.json"))
    if outcome.success:
        return 0
    if outcome.exception is None:
        return 1
    # dbt has logged what happened inside of a command; what is wrong with the arguments it tells its caller alone.
    print("".join(traceback.format_exception(outcome.exception)), file=sys.stderr)
    return 2


def _say_that_dbt_parses(error: Exception) -> None:
    said = f"what the bundle carries of dbt's parse cannot be read, so dbt parses the project: {error}"
    event = {"info": {"name": NOT_USABLE, "level": "warn", "msg": " ".join(said.split())[:500]}, "data": {}}
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    sys.exit(run_command(sys.argv[1:]))
