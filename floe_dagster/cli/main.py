"""Arguments and exit codes of `floe-dagster`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

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
    if not hasattr(options, "module"):
        parser.print_help()
        return EXIT_BAD_INPUT
    command: Callable[[argparse.Namespace], int] = import_module(options.module).run
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
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    compile_ = _command(
        commands,
        "compile",
        "compile products; writes target/compiled_artifacts.json and target/manifest.json",
        """\
examples:
  floe-dagster compile                                   every product below products/
  floe-dagster compile products/customer_360
  floe-dagster compile --manifest manifests/demo.yaml --output build
""",
    )
    _products(compile_)
    _manifest(compile_)
    compile_.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write to DIR/<product_slug>/ instead of the product's target/",
    )
    compile_.add_argument(
        "--generate-definitions",
        action="store_true",
        help="also write definitions.py and __init__.py into the product's folder",
    )
    _format(compile_)

    validate = _command(
        commands,
        "validate",
        "find everything that compile would find; write nothing",
        """\
examples:
  floe-dagster validate products/customer_360
  floe-dagster validate --documents                      the YAML alone, without dbt
  floe-dagster validate --format sarif > findings.sarif
""",
    )
    _products(validate)
    _manifest(validate)
    validate.add_argument("--documents", action="store_true", help="look at the YAML documents alone")
    _format(validate, "text", "json", "sarif")

    diff = _command(
        commands,
        "diff",
        "what a compilation would change for consumers and for governance, and what another engine means",
        """\
examples:
  floe-dagster diff products/customer_360
  floe-dagster diff --manifest manifests/demo.yaml   what becomes of tables, views and state on another platform
""",
    )
    _products(diff)
    _manifest(diff)
    diff.add_argument(
        "--published",
        action="store_true",
        help="ask the catalog, too: which declared types the published tables cannot take",
    )
    _format(diff)

    explain = _command(
        commands,
        "explain",
        "who decided each governed field, and who was overruled",
        "examples:\n  floe-dagster explain products/customer_360\n",
    )
    _products(explain)
    _manifest(explain)
    _format(explain)

    schema = _command(
        commands,
        "schema",
        "print the JSON Schema of a document",
        "examples:\n  floe-dagster schema product\n  floe-dagster schema manifest --format markdown           a table of its fields\n  floe-dagster schema --write docs/schemas\n",
    )
    schema.add_argument(
        "document", nargs="?", choices=("manifest", "product", "compiled_artifacts"), default="product"
    )
    schema.add_argument("--format", choices=("json", "markdown"), default="json", help="of the output")
    schema.add_argument("--write", type=Path, metavar="DIR", help="write all three into DIR")

    run = _command(
        commands,
        "run",
        "compile products, run them in Dagster, print what was published, or why nothing was",
        "examples:\n  floe-dagster run\n  floe-dagster run products/customer_360 --full-refresh\n",
    )
    _products(run)
    _manifest(run)
    run.add_argument("--full-refresh", action="store_true", help="rebuild incremental models and seeds")
    _format(run)

    show = _command(
        commands,
        "show",
        "print rows and snapshots of a published table; where there is none, why",
        "examples:\n  floe-dagster show customer_360.mart_customer_360\n",
    )
    show.add_argument("table", metavar="PRODUCT.MODEL", help="for example customer_360.mart_customer_360")
    show.add_argument("--limit", type=int, default=10, metavar="N", help="rows to print (default 10)")
    show.add_argument(
        "--product-dir", type=Path, metavar="DIR", help="the product's folder, where it is elsewhere"
    )
    _format(show)

    _platform(commands)
    _waiting(commands, "lineage", "OpenLineage events")
    _waiting(commands, "telemetry", "traces and metrics")
    return parser


def _waiting(commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, records: str) -> None:
    command = _command(
        commands,
        name,
        f"show or deliver {records} that wait because their receiver was away",
        f"examples:\n  floe-dagster {name} status\n  floe-dagster {name} replay products/customer_360\n",
    )
    actions = command.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    status = actions.add_parser(
        "status", help=f"how many {records} wait", description=f"How many {records} wait."
    )
    replay = actions.add_parser(
        "replay",
        help="deliver them now; exit code 1 where the receiver does not take them",
        description="Deliver now what waits, oldest first. What is not taken stays, and can be replayed again.",
    )
    replay.add_argument(
        "--refused", action="store_true", help="once more also what the receiver refused for good"
    )
    for parser in (status, replay):
        _products(parser)
        _format(parser)


def _platform(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    platform = _command(
        commands,
        "platform",
        "bring catalog and storage to a usable state, or say what is wrong with them and with the engine",
        "examples:\n  floe-dagster platform bootstrap --manifest manifests/demo.yaml --dry-run\n"
        "  floe-dagster platform check --manifest manifests/demo.yaml\n",
    )
    actions = platform.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    bootstrap = actions.add_parser(
        "bootstrap",
        help="make bucket, policy, user, catalog, principal and grants, where they are missing",
        description="Make what is missing, and say so. It can be run again after any failure.",
        epilog="""\
environment:
  MINIO_ROOT_USER, MINIO_ROOT_PASSWORD                     who may make buckets, users and policies
  POLARIS_ROOT_CLIENT_ID, POLARIS_ROOT_CLIENT_SECRET       who may make catalogs and principals
  FLOE_STATE_ACCESS_KEY_ID, FLOE_STATE_SECRET_ACCESS_KEY   a user for Dagster's state alone, made where they are set
  and whatever the manifest refers to
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bootstrap.add_argument("--dry-run", action="store_true", help="only look, and say what would be done")
    bootstrap.add_argument(
        "--wait", type=_seconds, default=60.0, metavar="SECONDS", help="for each service at most (default 60)"
    )
    bootstrap.add_argument(
        "--credentials-file",
        type=_path,
        metavar="FILE",
        help="where credentials go that Polaris makes itself",
    )
    bootstrap.add_argument(
        "--management-url", metavar="URL", help="of Polaris, where it cannot be told from the catalog's URI"
    )
    check = actions.add_parser(
        "check",
        help="look at everything that publication needs; exit code 1 where something is wrong",
        description="Look at everything that publication needs, with the fix for what is wrong.",
    )
    wait = actions.add_parser(
        "wait",
        help="wait until the bucket exists and the catalog answers; exit code 1 where they do not in time",
        description="Wait until the bucket exists and may be used, and until the catalog answers. Nothing is made.",
        epilog="With --only state the keys are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, which reach Dagster's state alone.",
    )
    _manifest(wait)
    wait.add_argument(
        "--wait", type=_seconds, default=300.0, metavar="SECONDS", help="for all of it at most (default 300)"
    )
    wait.add_argument("--only", choices=("storage", "state", "catalog"), help="wait for one of them alone")
    for parser in (bootstrap, check):
        _manifest(parser)
        parser.add_argument(
            "--namespace",
            action="append",
            metavar="NAME",
            help="a product's namespace; bootstrap grants these alone, check looks at these (may be repeated)",
        )
        _format(parser)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, examples: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(module=f"floe_dagster.cli.{name}_command")
    return parser


def _products(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "products",
        nargs="*",
        type=Path,
        metavar="PRODUCT_DIR",
        help="folders with a floe.yaml; all below products/ when left out",
    )


def _manifest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--manifest",
        type=_path,
        metavar="M",
        help="platform manifest to use in place of the one that floe.yaml names (also: FLOE_MANIFEST)",
    )


def _format(parser: argparse.ArgumentParser, *formats: str) -> None:
    parser.add_argument("--format", choices=formats or ("text", "json"), default="text", help="of the output")


def _path(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; name a file, or leave the option out")
    return Path(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds between 0 and 3600")
    return seconds


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("floe-dagster")
    except metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    raise SystemExit(main())
