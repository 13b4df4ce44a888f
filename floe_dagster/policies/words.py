"""Words: whether a text says something, and of which words a name is made."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

PLACEHOLDERS = frozenset(
    [
        "todo",
        "tbd",
        "tba",
        "fixme",
        "xxx",
        "foo",
        "bar",
        "baz",
        "test",
        "none",
        "null",
        "nil",
        "na",
        "nan",
        "n.a.",
        "undefined",
        "unknown",
        "placeholder",
        "description",
        "desc",
        "empty",
        "missing",
        "later",
        "same",
        "ditto",
        "change.me",
        "changeme",
        "to.do",
        "to.be.done",
        "to.be.defined",
        "to.be.added",
        "not.available",
        "not.applicable",
        "no.description",
        "lorem.ipsum",
        "lorem",
        "asdf",
        "qwerty",
        "abc",
        "dummy",
        "wip",
        "column",
        "table",
        "field",
        "model",
    ]
)
"""What people write where a description is asked for and they have none; a dot stands for what separates words."""
SHORTEST = 3
"""Letters of a word that says something, in a script that has letters for sounds."""
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+|\d+")


def says_something(text: str | None) -> bool:
    """Tell whether a text is a description: it has a word, and is not what stands where one is missing.

    Args:
        text: As a person wrote it.
    """
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text or ""))
    letters = "".join(letter for word in words for letter in word if letter.isalpha())
    if ".".join(words).lower() in PLACEHOLDERS or "".join(words).lower() in PLACEHOLDERS:
        return False
    if len(set(letters.lower())) < 2:
        return False
    # A Chinese or Japanese word has one letter or two.
    shortest = 2 if any(ord(letter) > 0x2E80 for letter in letters) else SHORTEST
    return len(letters) >= shortest


def words_of(name: str) -> list[str]:
    """Return the words of a name, in lower case and in the singular: of `customerEMails`, `homeAddress_2`, `Zip Codes`.

    Args:
        name: Of a column, or an entry of a list of names.
    """
    return [_singular(part) for part in _parts(name)]


def _parts(name: str) -> list[str]:
    folded = unicodedata.normalize("NFKD", name)
    plain = "".join(letter for letter in folded if not unicodedata.combining(letter))
    return [part.lower() for part in _PARTS.findall(plain) if not part.isdigit()]


def contains(name: str, entries: Iterable[tuple[str, ...]]) -> tuple[str, ...] | None:
    """Return the entry that a name contains, word by word or written in one; None where it contains none.

    Args:
        name: Of a column.
        entries: Lists of words, from `words_of`.
    """
    whole = "".join(words_of(name))
    words = _parts(name)
    # Words that stand together, joined in every way: e_mail, eMail and email are one.
    runs = {
        form
        for begin in range(len(words))
        for end in range(begin + 1, min(begin + 5, len(words) + 1))
        for form in _singulars("".join(words[begin:end]))
    } | {whole}
    return next((entry for entry in entries if "".join(entry) in runs), None)


def _singulars(word: str) -> set[str]:
    """Return a word and whatever it may be the plural of: what is no word is in no list."""
    found = {word}
    if len(word) > 2 and word.endswith("s"):
        found.add(word[:-1])
    if len(word) > 4 and word.endswith("es"):
        found.add(word[:-2])
    if len(word) > 4 and word.endswith("ies"):
        found.add(f"{word[:-3]}y")
    return found


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    if len(word) > 4 and word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
