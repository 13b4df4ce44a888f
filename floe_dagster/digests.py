"""Digests of content: how sources, bundles and documents are told apart, and how what belongs to one is named in a folder.

All of them are SHA-256. In documents a digest is `sha256:` and 64 hexadecimal digits; a file name has the digits alone.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

PREFIX = "sha256:"
DIGEST_PATTERN = rf"^{PREFIX}[0-9a-f]{{64}}$"


def digest_of(content: bytes) -> str:
    """Return the digest of content as documents have it, with its prefix."""
    return f"{PREFIX}{digits_of(content)}"


def digits_of(content: bytes) -> str:
    """Return the 64 hexadecimal digits of the digest of content."""
    return hashlib.sha256(content).hexdigest()


def digits_of_file(path: str | Path) -> str:
    """Return the 64 hexadecimal digits of the digest of a file, which is never read into memory as a whole.

    Raises:
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_digest(text: str) -> bool:
    """Tell whether a text is a digest as documents have it, and so gives a harmless file name."""
    return re.fullmatch(DIGEST_PATTERN, text) is not None


def version_of(digest: str) -> str:
    """Return the digits of a digest: the version of a state in Dagster's storage, and the name of its file.

    Args:
        digest: As documents have it.
    """
    return digest.removeprefix(PREFIX)


def name_for(text: str, length: int = 32) -> str:
    """Return a file name for what is known by a text that is none itself, a path for example.

    Args:
        text: What it is known by.
        length: Of the name, in hexadecimal digits.
    """
    return digits_of(text.encode("utf-8", "surrogateescape"))[:length]
