"""Near misses."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(found: str, known: Iterable[str]) -> str | None:
    """Return `Did you mean 'x'?` for the nearest of `known`, or None where nothing is near."""
    near = difflib.get_close_matches(found, list(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else None
