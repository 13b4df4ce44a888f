"""What a command of `floe-dagster` is: its texts, its options, and what it does."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


def _no_options(_parser: argparse.ArgumentParser) -> None:
    return


@dataclass(frozen=True, slots=True)
class Command:
    """One command: a module `<name>_command.py` that has it as `COMMAND`, and the name's line in `main.COMMANDS`.

    The modules of all commands are imported for `--help`, so each imports what takes time where it runs.

    Args:
        text: What it is for, without a capital and a full stop; `--help` shows it.
        examples: Command lines, one a line; what stands two spaces further right says what the line does.
        run: Gets the parsed options and returns the exit code.
        add_options: Adds the options and actions to the command's parser.
    """

    text: str
    examples: str
    run: Callable[[argparse.Namespace], int]
    add_options: Callable[[argparse.ArgumentParser], None] = _no_options

    @property
    def epilog(self) -> str:
        """The examples, as `--help` shows them."""
        lines = [f"  {line}\n" for line in self.examples.strip().splitlines()]
        return "examples:\n" + "".join(lines)
