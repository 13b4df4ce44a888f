"""Patterns that products and platforms write: matched by RE2, in a time that grows with the text and never with the pattern's shape.

Python's own `re` tries every way in which a pattern may match. `(a+)+$` takes it hours on a name of forty letters, and a
product could keep the compiler, or a whole code location, from ever answering.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from floe_dagster.schemas.base import NotAllowedError

if TYPE_CHECKING:
    import re2


@cache
def compiled(pattern: str) -> re2._Regexp[str]:
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
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        words = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise NotAllowedError(
            f"is no regular expression that can be used: {words}",
            allowed="regular expressions as RE2 has them: without look-ahead, look-behind and back references",
            fix="Write it without them; alternatives can be entries of their own in the list.",
        ) from None
