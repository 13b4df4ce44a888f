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
        tests: Unique ids of tests that dbt would not choose by itself: they read what earlier phases built, too.
    """

    engine: str
    wanted: set[str]
    tests: set[str] = field(default_factory=set)


def plan_phases(
    assets: Mapping[str, Mapping[str, Any]],
    tests: Mapping[str, Mapping[str, Any]],
    *,
    wanted: set[str],
    done: set[str],
    repeated: set[str],
) -> list[Phase]:
    """Return the phases of one run; one where the product has one engine.

    Args:
        assets: Of the asset index by unique id, each after those that it reads; each names its engine.
        tests: Checks of the asset index that are asked for, by unique id.
        wanted: Unique ids of what is to be built.
        done: Unique ids of what an earlier attempt has published.
        repeated: Unique ids of tests of the latter that have to run again.
    """
    engines = list(dict.fromkeys(assets[key]["engine"] for key in assets if key in wanted))
    orders = (_phases(assets, wanted, [*engines[n:], *engines[:n]]) for n in range(len(engines)))
    phases = min(orders, key=len, default=[])
    built = set(done)
    for phase in phases:
        now = built | phase.wanted
        phase.tests |= {key for key, test in tests.items() if _completes(test, phase.wanted, now)}
        built = now
    for key in sorted(repeated):
        _repeat(key, tests[key], assets, phases)
    return phases


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


def _completes(test: Mapping[str, Any], ready: set[str], built: set[str]) -> bool:
    """Tell whether a phase builds the last of what a test reads, and not all of it: then dbt chooses it by itself."""
    reads = set(test["reads"])
    return reads <= built and not reads <= ready and not reads.isdisjoint(ready)


def _repeat(
    key: str, test: Mapping[str, Any], assets: Mapping[str, Mapping[str, Any]], phases: list[Phase]
) -> None:
    """Put a test into the last phase that builds something which it reads, else into one of its own engine."""
    engine = assets[test["asset"]]["engine"]
    reading = [phase for phase in phases if not phase.wanted.isdisjoint(test["reads"])]
    own = [phase for phase in phases if phase.engine == engine]
    if reading or own:
        (reading or own)[-1].tests.add(key)
    else:
        phases.append(Phase(engine, set(), {key}))
