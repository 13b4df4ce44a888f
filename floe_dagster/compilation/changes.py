"""What differs between two documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ABSENT = "(absent)"


def document_changes(before: Any, after: Any) -> list[tuple[str, Any, Any]]:
    """Return dotted path, old and new value of every leaf that differs; lists of named items by name."""
    return list(_walk(before, after, ""))


def _walk(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    before, after = _by_name(before), _by_name(after)
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            inner = f"{path}.{key}" if path else str(key)
            yield from _walk(before.get(key, ABSENT), after.get(key, ABSENT), inner)
    elif before != after:
        yield path, before, after


def _by_name(value: Any) -> Any:
    if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        return {item["name"]: item for item in value}
    return value
