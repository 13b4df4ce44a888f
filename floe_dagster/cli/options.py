"""Options that several commands have, and what may stand in them."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_products(parser: argparse.ArgumentParser) -> None:
    """Add the folders of products, as many as are wanted."""
    parser.add_argument(
        "products",
        nargs="*",
        type=Path,
        metavar="PRODUCT_DIR",
        help="folders with a floe.yaml; all below products/ when left out",
    )


def add_manifest(parser: argparse.ArgumentParser) -> None:
    """Add `--manifest`."""
    parser.add_argument(
        "--manifest",
        type=path,
        metavar="M",
        help="platform manifest to use in place of the one that floe.yaml names (also: FLOE_MANIFEST)",
    )


def add_format(parser: argparse.ArgumentParser, *formats: str) -> None:
    """Add `--format`.

    Args:
        parser: Of the command.
        formats: What the output may be; text and json when left out. The first is the default.
    """
    formats = formats or ("text", "json")
    parser.add_argument("--format", choices=formats, default=formats[0], help="of the output")


def path(text: str) -> Path:
    """Return the path that was typed.

    Raises:
        argparse.ArgumentTypeError: It is empty, as where a variable of a script is not set.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; name a file, or leave the option out")
    return Path(text)


def seconds(text: str) -> float:
    """Return the seconds that were typed.

    Raises:
        argparse.ArgumentTypeError: It is no number, or not between 0 and 3600.
    """
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds between 0 and 3600")
    return number
