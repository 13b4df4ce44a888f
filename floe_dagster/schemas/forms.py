"""The forms that text in a document has to have: each regular expression with the words that a person reads in its place."""

from __future__ import annotations

_WORDS: dict[str, str] = {}


def form(pattern: str, words: str) -> str:
    """Return a pattern for a field, and remember what to say of it.

    Args:
        pattern: A regular expression for pydantic's `Field(pattern=…)`.
        words: What text of this form is, with an example: `a number with a unit, such as 4GB`.
    """
    _WORDS[pattern] = words
    return pattern


def in_words(pattern: str) -> str:
    """Return what text that matches a pattern is; the pattern itself where nobody has said it, as in an extension."""
    return _WORDS.get(pattern) or f"text that matches {pattern}"
