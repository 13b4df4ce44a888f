"""Error messages as they may leave: what went wrong, without the rows it went wrong on."""

from __future__ import annotations

import re

_QUOTES_VALUES = re.compile(
    r"Conversion Error|Out of Range Error|Constraint Error|Invalid Input Error|Could not convert|Duplicate key"
)
_QUOTED = re.compile(r"'[^'\n]*'")
_KEY = re.compile(r'(Duplicate key )"[^"\n]*"')


def without_values(message: str) -> str:
    """Return a message of the engine without the values that it quotes.

    Args:
        message: Of DuckDB or dbt.
    """
    if not _QUOTES_VALUES.search(message):
        return message
    return _KEY.sub(r'\1"…"', _QUOTED.sub("'…'", message))
