"""In which order the engines of a product work: no engine twice in a row, each table after what it waits for.

An asset waits for what it reads, and for what its error tests read: a table is not published without their results.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import cycle


@dataclass(frozen=True, slots=True)
class EngineOrder:
    """What is built one after the other.

    Args:
        parts: Name of an engine, and unique ids of what it builds, before another one goes on.
        stuck: Unique ids of what waits for itself: a table that has to be published before one of its tests can run.
    """

    parts: tuple[tuple[str, frozenset[str]], ...]
    stuck: frozenset[str] = frozenset()


def engine_order(
    engines: Mapping[str, str], waits: Mapping[str, Collection[str]], wanted: Collection[str]
) -> EngineOrder:
    """Return the order with the fewest parts.

    Args:
        engines: Name of the engine of each asset by unique id; each asset after those that it reads.
        waits: Unique ids of what each asset waits for. Assets of one engine may wait for each other: they are built at once.
        wanted: Unique ids of what is to be built.
    """
    names = list(dict.fromkeys(engines[key] for key in engines if key in wanted))
    orders = (_order(engines, waits, wanted, [*names[n:], *names[:n]]) for n in range(len(names)))
    return min(orders, key=lambda order: (len(order.stuck), len(order.parts)), default=EngineOrder(()))


def _order(
    engines: Mapping[str, str],
    waits: Mapping[str, Collection[str]],
    wanted: Collection[str],
    names: Iterable[str],
) -> EngineOrder:
    remaining = set(wanted)
    names = list(names)
    parts: list[tuple[str, frozenset[str]]] = []
    idle = 0
    for engine in cycle(names):
        if not remaining or idle == len(names):
            break
        ready = frozenset(remaining - _waiting(engines, waits, remaining, engine))
        if ready:
            parts.append((engine, ready))
            remaining -= ready
        idle = 0 if ready else idle + 1
    return EngineOrder(tuple(parts), frozenset(remaining))


def _waiting(
    engines: Mapping[str, str], waits: Mapping[str, Collection[str]], remaining: set[str], engine: str
) -> set[str]:
    """Return what cannot be built by an engine before another one has gone on.

    What is not asked for hands the waiting on: its readers see it rebuilt where it is missing.
    """
    waiting = {key for key in remaining if engines[key] != engine}
    count = -1
    while count != len(waiting):
        count = len(waiting)
        for key in engines:
            if key not in waiting and not waiting.isdisjoint(waits.get(key, ())):
                waiting.add(key)
    return waiting
