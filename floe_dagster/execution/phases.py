"""The order in which the engines of a product work in one run: no engine twice in a row, each after what it reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from floe_dagster.compilation.engine_order import engine_order
from floe_dagster.schemas.product_index import Asset, Check


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
    assets: Mapping[str, Asset],
    tests: Mapping[str, Check],
    *,
    wanted: set[str],
    alone: set[str],
) -> list[Phase]:
    """Return the phases of one run; one where the product has one engine.

    A table is not published without the results of its tests, so every test that withholds something wanted has a phase:
    the one that builds the last of what it reads. A table waits for what its error tests read.

    Args:
        assets: Of the index by unique id, each after those that it reads; each names its engine.
        tests: Checks of the asset index, by unique id.
        wanted: Unique ids of what is to be built.
        alone: Unique ids of tests that run although nothing which they withhold is built.
    """
    engines = {key: asset.engine for key, asset in assets.items()}
    reads = {key: set(asset.deps) for key, asset in assets.items()}
    waits = {key: set(asset.deps) for key, asset in assets.items()}
    for test in tests.values():
        for judged in wanted.intersection(test.withholds) if test.is_error else ():
            waits[judged].update(test.reads)
    order = engine_order(engines, waits, wanted)
    if order.stuck:
        # Only of a product that an earlier version compiled: a test that comes too late is a finding now.
        order = engine_order(engines, reads, wanted)
    phases = [Phase(engine, set(keys)) for engine, keys in order.parts]
    for key, test in tests.items():
        judging = _building(phases, test.withholds)
        if judging:
            # A test of a source or an ephemeral model runs before the first of its readers is published.
            phases[max([*_building(phases, test.reads)[-1:], judging[0]])].tests.add(key)
    for key in sorted(alone):
        _add_alone(key, tests[key], assets, phases)
    return phases


def _building(phases: list[Phase], keys: Iterable[str]) -> list[int]:
    """Return the numbers of the phases that build one of the assets."""
    keys = set(keys)
    return [number for number, phase in enumerate(phases) if not phase.wanted.isdisjoint(keys)]


def _add_alone(key: str, test: Check, assets: Mapping[str, Asset], phases: list[Phase]) -> None:
    """Put a test into the last phase that builds something which it reads, else into one of its own engine."""
    engine = assets[test.asset].engine
    reading = _building(phases, test.reads)
    own = [number for number, phase in enumerate(phases) if phase.engine == engine]
    if reading or own:
        phases[(reading or own)[-1]].tests.add(key)
    else:
        phases.append(Phase(engine, set(), {key}))
