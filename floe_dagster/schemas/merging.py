"""Rules by which a field is merged over the manifests of a chain and the product: one named rule a field.

| rule | who wins | what is an attempt to weaken |
|---|---|---|
| stricter | the strictest value; among equals the outermost layer | a value that is weaker than an outer layer's |
| outermost | the outermost layer that states the field, or one that belongs to it | any other value |
| common | nobody alone: what all layers list that state the field | an entry that an outer layer does not list |
| every | nobody alone: each layer's list counts by itself | nothing |
| all | nobody alone: what the layers list together | nothing |
| nearest | the layer nearest to the product, within the bounds of the platform | nothing |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Statements = Sequence[Mapping[str, Any]]
"""What each layer states, by field; the outermost layer first."""


class MergeRule(Protocol):
    """Who decides one field, and which of the others tried to weaken it."""

    @property
    def name(self) -> Literal["stricter", "outermost", "common", "every", "all", "nearest"]:
        """What the rule is called."""
        ...

    @property
    def who_wins(self) -> str:
        """Who wins, in Markdown for people."""
        ...

    def decide(self, field: str, layers: Statements) -> tuple[int, Any] | None:
        """Return the position of the layer that decides and the value in force; None where no layer states the field.

        The value is None where a layer decides that there is none: it states what belongs to the field.
        """
        ...

    def weakens(self, field: str, position: int, layers: Statements) -> bool:
        """Tell whether the layer at `position`, which states the field, wants less than an outer one."""
        ...


@dataclass(frozen=True, slots=True)
class Stricter:
    """The strictest value wins, whichever layer states it; among equals the outermost layer's.

    Args:
        who_wins: Which value is stricter than which.
        strength: How strict a value is; the higher number wins.
    """

    who_wins: str
    strength: Callable[[Any], float]
    name: Literal["stricter"] = "stricter"

    def decide(self, field: str, layers: Statements) -> tuple[int, Any] | None:
        stating = _stating(field, layers)
        if not stating:
            return None
        winner = max(stating, key=lambda position: self.strength(layers[position][field]))
        return winner, layers[winner][field]

    def weakens(self, field: str, position: int, layers: Statements) -> bool:
        own = self.strength(layers[position][field])
        outer = _stating(field, layers[:position])
        return any(own < self.strength(layers[other][field]) for other in outer)


@dataclass(frozen=True, slots=True)
class Outermost:
    """The outermost layer that states one of the fields which belong together decides all of them.

    Whoever could state a second of them would change what the first one means: `naming.custom_patterns` say nothing
    under `naming.pattern: kimball`, and everything without it.

    Args:
        together: The fields that belong together.
        completed: Returns what a layer states, with what follows from it and without what says nothing.
    """

    together: tuple[str, ...]
    completed: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    who_wins: str = "the outermost layer that states one of them decides all of them"
    name: Literal["outermost"] = "outermost"

    def decide(self, field: str, layers: Statements) -> tuple[int, Any] | None:
        winner = self._winner(layers)
        if winner is None:
            return None
        value = self.completed(layers[winner]).get(field)
        return (winner, value) if value is not None or _stating(field, layers) else None

    def weakens(self, field: str, position: int, layers: Statements) -> bool:
        decided = self.decide(field, layers)
        return (
            decided is not None and position > decided[0] and not _same(layers[position][field], decided[1])
        )

    def _winner(self, layers: Statements) -> int | None:
        wanted = set(self.together)
        stating = (position for position, layer in enumerate(layers) if self.completed(layer).keys() & wanted)
        return next(stating, None)


@dataclass(frozen=True, slots=True)
class Common:
    """What is allowed is what every layer lists that states the field; the last one that took something away decided."""

    who_wins: str = "what is in the lists of all layers that have one"
    name: Literal["common"] = "common"

    def decide(self, field: str, layers: Statements) -> tuple[int, Any] | None:
        winner, common = None, set[Any]()
        for position in _stating(field, layers):
            listed = set(layers[position][field])
            narrowed = listed if winner is None else common & listed
            if winner is None or narrowed != common:
                winner, common = position, narrowed
        return None if winner is None else (winner, sorted(common))

    def weakens(self, field: str, position: int, layers: Statements) -> bool:
        outer = self.decide(field, layers[:position])
        return outer is not None and not set(layers[position][field]) <= set(outer[1])


@dataclass(frozen=True, slots=True)
class Every:
    """Whatever is asked for has to be in the list of every layer that has one; with patterns in lists, they have no common one.

    Where several layers have a list, the value is their lists, the outermost first.
    """

    who_wins: str = "nobody alone: each layer's list has to name it"
    name: Literal["every"] = "every"

    def decide(self, field: str, layers: Statements) -> tuple[int, Any] | None:
        stating = _stating(field, layers)
        lists = [layers[position][field] for position in stating]
        return (stating[-1], lists[0] if len(lists) == 1 else lists) if lists else None

    def weakens(self, field: str, position: int, layers: Statements) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class All:
    """What counts is what the layers list together; the last one that added something decided."""

    who_wins: str = "what the lists of all layers have together"
    name: Literal["all"] = "all"

    def decide(self, field: str, layers: Statements) -> tuple[int, Any] | None:
        winner, together = None, list[Any]()
        for position in _stating(field, layers):
            further = [entry for entry in layers[position][field] if entry not in together]
            if winner is None or further:
                winner, together = position, [*together, *further]
        return None if winner is None else (winner, together)

    def weakens(self, field: str, position: int, layers: Statements) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Nearest:
    """The layer nearest to the product wins: neither value is stricter than another."""

    who_wins: str = "the nearest layer, within `bounds`: neither value is stricter than another"
    name: Literal["nearest"] = "nearest"

    def decide(self, field: str, layers: Statements) -> tuple[int, Any] | None:
        stating = _stating(field, layers)
        return (stating[-1], layers[stating[-1]][field]) if stating else None

    def weakens(self, field: str, position: int, layers: Statements) -> bool:
        return False


def _stating(field: str, layers: Statements) -> list[int]:
    return [position for position, layer in enumerate(layers) if field in layer]


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, list):
        # One of the patterns has to match, whatever their order.
        return set(value) == set(other or ())
    return bool(value == other)


def ranked(*weakest_first: str) -> Stricter:
    """Return the rule of a field that has a few values.

    Args:
        weakest_first: The values.
    """
    strictest_first = " over ".join(f"`{value}`" for value in reversed(weakest_first))
    return Stricter(strictest_first, lambda value: weakest_first.index(value))


GREATER = Stricter("the greater number", float)
SMALLER = Stricter("the smaller number", lambda value: -float(value))
TRUE = Stricter("`true`", float)
FALSE = Stricter("`false`", lambda value: -float(value))
LEVEL = ranked("off", "warn", "strict")
NEAREST = Nearest()
EVERY = Every()
