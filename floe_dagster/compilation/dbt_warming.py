"""What dbt and its libraries make when it is first needed, made once for all commands of a process that forks for them.

mashumaro writes and compiles the code that reads and writes a class of dbt when an object of it is first read or written, and
the schema that a document is checked against when the first one is. That is a third of the time that a small `dbt parse` takes.
Nothing of it holds anything of a project. Where a class is gone, nothing happens: dbt makes what it needs.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

_NODES = (
    "ModelNode",
    "SeedNode",
    "SnapshotNode",
    "GenericTestNode",
    "SingularTestNode",
    "SourceDefinition",
    "Macro",
)
_CHECKED_NODES = ("ModelNode",)
_CHECKED_CONFIGS = ("ModelConfig",)
"""Of what every project has. The others cost a process that parses once as much as they save."""


def look_for_sources() -> None:
    """Have `inspect` know which file each module is of.

    An adapter's flags ask it who has made them, and the first question costs a look at the file of every module there is.
    """
    inspect.stack()


def check_documents(classes: Iterable[Any]) -> None:
    """Make the schemas that these classes check documents with."""
    for checked in classes:
        with suppress(Exception):  # an adapter may have something else there
            checked.json_schema()


def read_and_write_nodes() -> None:
    """Make what reads the nodes of a manifest, and what gives them to Jinja: every run does both."""
    from dbt.contracts.graph import nodes

    for name in _NODES:
        node = getattr(nodes, name, None)
        # Neither has what it needs, which each says after it was made.
        with suppress(Exception):
            node.from_dict({})  # type: ignore[union-attr]
        with suppress(Exception):
            node.to_dict(object.__new__(node))  # type: ignore[union-attr, arg-type]


def check_nodes() -> None:
    """Make the schemas that a parse checks the usual nodes and their configs with."""
    from dbt.contracts.graph import model_config, nodes

    check_documents(getattr(nodes, name, None) for name in _CHECKED_NODES)
    check_documents(getattr(model_config, name, None) for name in _CHECKED_CONFIGS)
