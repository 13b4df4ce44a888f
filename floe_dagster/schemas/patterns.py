"""Patterns that products and platforms write: matched by RE2, in a time that grows with the text and never with the pattern's shape.

Python's own `re` tries every way in which a pattern may match. `(a+)+$` takes it hours on a name of forty letters, and a
product could keep the compiler, or a whole code location, from ever answering.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

from floe_dagster.schemas.base import NotAllowedError


class Pattern(Protocol):
    """What RE2 makes of a pattern, as far as it is used here."""

    pattern: str

    def fullmatch(self, text: str) -> Any:
        """Return the match where the pattern takes all of a text, else None."""

    def search(self, text: str) -> Any:
        """Return the first match in a text, else None."""

    def finditer(self, text: str) -> Any:
        """Yield the matches in a text."""


@cache
def compiled(pattern: str) -> Pattern:
    """Return a pattern, ready to match.

    Args:
        pattern: As a person wrote it.

    Raises:
        NotAllowedError: It is no regular expression, or one that cannot be matched in linear time.
    """
    import re2

    options = re2.Options()
    # It would write to the terminal what the finding says.
    options.log_errors = False
    try:
        found: Pattern = re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        words = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise NotAllowedError(
            f"is no regular expression that can be used: {words}",
            allowed="regular expressions as RE2 has them: without look-ahead, look-behind and back references",
            fix="Write it without them; alternatives can be entries of their own in the list.",
        ) from None
    return found
