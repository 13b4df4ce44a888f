"""Near misses."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(found: str, known: Iterable[str]) -> str | None:
    """Return `Did you mean 'x'?` for the nearest of `known`, or None where nothing is near."""
    near = difflib.get_close_matches(found, list(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else None


def some(names: Iterable[str], limit: int = 8) -> str:
    """Return names in their order, the first of them where there are many: `a, b and 3 more`."""
    listed = sorted(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
