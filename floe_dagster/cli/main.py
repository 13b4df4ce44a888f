"""Arguments and exit codes of `floe-dagster`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from floe_dagster.cli.command import Command

COMMANDS = (
    "compile",
    "validate",
    "diff",
    "explain",
    "schema",
    "run",
    "show",
    "platform",
    "lineage",
    "telemetry",
)
"""In the order of `--help`; the module `<name>_command` of this package has each, with its options."""

EXIT_FINE, EXIT_BLOCKED, EXIT_BAD_INPUT = 0, 1, 2

_DESCRIPTION = """\
Compile two YAML documents and a dbt project into governed Dagster definitions.

  manifest.yaml   the platform's: compute, catalog, storage, governance
  floe.yaml       the product's: what to transform, when, who owns it
"""
_EXIT_CODES = """\
exit codes:
  0  fine
  1  a finding blocks (a policy under strict, a failed check of a run)
  2  a document or an argument cannot be used
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Without the program's name; `sys.argv[1:]` when left out.

    Returns:
        The exit code: 0 fine, 1 something blocks, 2 bad input.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "run"):
        parser.print_help()
        return EXIT_BAD_INPUT
    command: Callable[[argparse.Namespace], int] = options.run
    try:
        return command(options)
    except KeyboardInterrupt:
        print("interrupted; what was written before stands", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_FINE
    except OSError as error:
        print(f"error: {_explained(error)}", file=sys.stderr)
        return EXIT_BAD_INPUT


def _explained(error: OSError) -> str:
    if error.filename is None or error.strerror is None:
        return str(error)
    text = f"{error.filename}: {error.strerror.lower()}"
    home = os.environ.get("FLOE_HOME", "").strip()
    if home and str(error.filename).startswith(os.path.abspath(os.path.expanduser(home))):
        text += f". FLOE_HOME is {home}; it has to be a folder that can be written"
    return text


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="floe-dagster",
        description=_DESCRIPTION,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"floe-dagster {_version()}")
    parsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name in COMMANDS:
        command = command_named(name)
        of_command = parsers.add_parser(
            name,
            help=command.text,
            description=command.text[0].upper() + command.text[1:] + ".",
            epilog=command.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        of_command.set_defaults(run=command.run)
        command.add_options(of_command)
    return parser


def command_named(name: str) -> Command:
    """Return one command.

    Args:
        name: One of `COMMANDS`.
    """
    command: Command = import_module(f"floe_dagster.cli.{name}_command").COMMAND
    return command


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("floe-dagster")
    except metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    raise SystemExit(main())
