"""Fifty products in one `dagster dev`, and ten runs more of one of them: limits kept, turns taken, time lost to the queue."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from floe_dagster.definitions.queue.tags import CATALOG_TAG, PRODUCT_TAG, engine_tag
from tests.benchmarks.report import Row
from tests.many_products import CHEAP, SeenRun, limits, most_of_each, overtaken, served

PRODUCTS, MORE = 50, 10
ENGINE, CATALOG = 4, 3
SECONDS = 5_400.0
LOOK_SECONDS = 10.0
"""The queue looks every five seconds, and starts what it found one after the other."""


def measure(root: Path, products: int = PRODUCTS, more: int = MORE) -> list[Row]:
    """Ask for all runs at once, the many of the one product first, and read Dagster's event log when all have ended.

    Args:
        root: An empty folder.
        products: How many products.
        more: How many runs more of the first one.
    """
    folder, home = root / "project", root / "home"
    folder.mkdir(parents=True)
    home.mkdir()
    with served(folder, home, products, limits(engine=ENGINE, catalog=CATALOG)) as many:
        first, *others = many.products
        ids = [many.launch(first, **CHEAP) for _time in range(1 + more)]
        ids += [many.launch(product, **CHEAP) for product in others]
        runs = many.ends(ids, SECONDS)
    failed = [run for run in runs if run.status != "SUCCESS"]
    begun, ended = min(run.queued for run in runs), max(run.held[1] for run in runs)
    engine = most(runs, engine_tag("duckdb"))
    catalogs = most(runs, CATALOG_TAG)
    each = most(runs, PRODUCT_TAG)
    pairs, compared = overtaken(runs, LOOK_SECONDS)
    singles = sorted(run.held[0] for run in runs if run.turn == 0)
    later = sorted(run.held[0] for run in runs if run.turn < 0)
    before = sum(1 for one in later if one < singles[-1])
    # Afterwards runs of the one product are left, which has one place at a time.
    used = places_in_use(runs, begun, singles[-1]) / ENGINE
    wait = median(run.held[0] - run.queued for run in runs if run.turn == 0)
    return [
        Row(
            f"{products} products and {more} runs more of one, {ENGINE} at once: all ended",
            f"{ended - begun:.0f} s, {60 * len(runs) / (ended - begun):.1f} runs a minute",
            "-",
            None,
            f"none failed (is {len(failed)})",
            not failed,
        ),
        Row(
            f"runs at once: engine, catalog, product; limits {ENGINE}, {CATALOG}, 1",
            f"{engine}, {catalogs}, {each}",
            "-",
            None,
            "none passed",
            engine <= ENGINE and catalogs <= CATALOG and each <= 1,
        ),
        Row(
            f"places of the engine in use, of {ENGINE}, while first runs waited",
            f"{used:.0%}",
            "-",
            None,
            ">= 75%",
            used >= 0.75,
        ),
        Row(
            f"runs that went before an earlier turn of another product, of {compared}",
            str(len(pairs)),
            f"{before} of {more} of the one while first runs waited (median wait {wait:.0f} s)",
            None,
            "0",
            not pairs,
        ),
    ]


def places_in_use(runs: list[SeenRun], begin: float, end: float) -> float:
    """Return how many runs held a place between two moments, on average."""
    held = (min(last, end) - max(first, begin) for first, last in (run.held for run in runs))
    return sum(seconds for seconds in held if seconds > 0) / (end - begin)


def most(runs: list[SeenRun], tag: str) -> int:
    """Return how many runs with one value of a tag were launched at once at most."""
    return max(most_of_each(runs, lambda run: run.tags[tag]).values())
