"""The order in which the engines of a product work in one run: no engine twice in a row, each after what it reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any


@dataclass(slots=True)
class Phase:
    """What one engine builds before another one goes on.

    Args:
        engine: Its name.
        wanted: Unique ids of assets.
        tests: Unique ids of the tests that run with them.
    """

    engine: str
    wanted: set[str]
    tests: set[str] = field(default_factory=set)


def plan_phases(
    assets: Mapping[str, Mapping[str, Any]],
    tests: Mapping[str, Mapping[str, Any]],
    *,
    wanted: set[str],
    alone: set[str],
) -> list[Phase]:
    """Return the phases of one run; one where the product has one engine.

    A table is not published without the results of its tests, so every test that withholds something wanted has a phase:
    the one that builds the last of what it reads.

    Args:
        assets: Of the asset index by unique id, each after those that it reads; each names its engine.
        tests: Checks of the asset index, by unique id.
        wanted: Unique ids of what is to be built.
        alone: Unique ids of tests that run although nothing which they withhold is built.
    """
    engines = list(dict.fromkeys(assets[key]["engine"] for key in assets if key in wanted))
    orders = (_phases(assets, wanted, [*engines[n:], *engines[:n]]) for n in range(len(engines)))
    phases = min(orders, key=len, default=[])
    for key, test in tests.items():
        judging = _building(phases, withheld_by(test))
        if judging:
            # A test of a source or an ephemeral model runs before the first of its readers is published.
            phases[max([*_building(phases, test["reads"])[-1:], judging[0]])].tests.add(key)
    for key in sorted(alone):
        _add_alone(key, tests[key], assets, phases)
    return phases


def withheld_by(test: Mapping[str, Any]) -> list[str]:
    """Return the unique ids of the assets that a test withholds; in a state of an older version, those that it reads.

    Args:
        test: As in the asset index.
    """
    found: list[str] = test.get("withholds", test["reads"])
    return found


def _building(phases: list[Phase], keys: Iterable[str]) -> list[int]:
    """Return the numbers of the phases that build one of the assets."""
    keys = set(keys)
    return [number for number, phase in enumerate(phases) if not phase.wanted.isdisjoint(keys)]


def _phases(assets: Mapping[str, Mapping[str, Any]], wanted: set[str], engines: Iterable[str]) -> list[Phase]:
    remaining = set(wanted)
    found: list[Phase] = []
    for engine in cycle(engines):
        if not remaining:
            break
        ready: set[str] = set()
        waiting: set[str] = set()
        for key, asset in assets.items():
            if not waiting.isdisjoint(asset["deps"]):
                # What is not asked for hands the waiting on: its readers see it rebuilt where it is missing.
                waiting.add(key)
            elif key in remaining:
                (ready if asset["engine"] == engine else waiting).add(key)
        if ready:
            found.append(Phase(engine, ready))
            remaining -= ready
    return found


def _add_alone(
    key: str, test: Mapping[str, Any], assets: Mapping[str, Mapping[str, Any]], phases: list[Phase]
) -> None:
    """Put a test into the last phase that builds something which it reads, else into one of its own engine."""
    engine = assets[test["asset"]]["engine"]
    reading = _building(phases, test["reads"])
    own = [number for number, phase in enumerate(phases) if phase.engine == engine]
    if reading or own:
        phases[(reading or own)[-1]].tests.add(key)
    else:
        phases.append(Phase(engine, set(), {key}))
