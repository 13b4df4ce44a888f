"""Many small products in one location of a real `dagster dev` with limits: generated, started, and read afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import tests.dagster_dev
from floe_dagster.definitions.queue.tags import CATALOG_TAG, PRODUCT_TAG, TURN_TAG, engine_tag
from floe_dagster.home import FloeHome
from tests.conftest import ROOT
from tests.dagster_dev import DagsterDev
from tests.locations import bake

LOCATION = "many"
WORKSPACE = """\
load_from:
  - python_module: {module_name: many.definitions, working_directory: ., location_name: many}
"""
DEFINITIONS = """\
from pathlib import Path

import dagster as dg

from floe_dagster import load_product_definitions

products = sorted(spec.parent for spec in Path(__file__).parent.glob("*/floe.yaml"))
defs = dg.Definitions.merge(*(load_product_definitions(one, sensor_interval_seconds=3600) for one in products))
"""
MANIFEST = """\
apiVersion: floe.dev/v1
kind: Manifest
metadata: {{name: platform-{name}, version: 1.0.0, owner: platform@example.com}}
plugins:
  compute: {{type: duckdb, config: {{threads: 1}}}}
  orchestrator: {{type: dagster}}
  catalog: {{type: sql, config: {{warehouse: '{warehouse}'}}}}
  storage: {{type: local}}
observability: {{tracing: {{exporter: none}}, lineage: {{transport: noop}}}}
governance: {{policy_enforcement_level: warn}}
"""
SPEC = """\
apiVersion: floe.dev/v1
kind: FloeSpec
metadata: {{name: {name}, version: 1.0.0, owner: team@example.com}}
platform: {{manifest: ../../manifest-{catalog}.yaml}}
"""
MODEL = """\
select {number} as id{{% if var('slow', false) %}}, length(content) as size from read_text('{fifo}'){{% endif %}}
"""
"""With the variable it reads a FIFO that nobody writes: it waits, and costs nothing."""
RUNS = """query ($tags: [ExecutionTag!]) { runsOrError(filter: {tags: $tags}) { ... on Runs { results {
    id jobName status tags { key value } stepStats { startTime endTime }
    stats { ... on RunStatsSnapshot { enqueuedTime launchTime startTime endTime } } } } } }"""
STATUSES = "{ runsOrError { ... on Runs { results { id status } } } }"
CHEAP: dict[str, Any] = {"execution": {"config": {"in_process": {}}}}
"""Run config: no process of the step's own. The limits are those of runs."""
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}


@dataclass(frozen=True, slots=True)
class Product:
    """A generated product.

    Args:
        slug: Its slug.
        catalog: Name of the catalog, as the limits know it.
    """

    slug: str
    catalog: str


@dataclass(frozen=True, slots=True)
class SeenRun:
    """A run as Dagster's event log tells it afterwards; times in seconds.

    Args:
        id: Of the run.
        status: Its status.
        tags: Its tags.
        queued: When it came into the queue.
        launched: When the queue let it go; None while it waits.
        ended: When it ended; None before.
        steps: Begin and end of its steps.
    """

    id: str
    status: str
    tags: Mapping[str, str]
    queued: float
    launched: float | None
    ended: float | None
    steps: tuple[tuple[float, float], ...]

    @property
    def turn(self) -> int:
        return int(self.tags.get(TURN_TAG, "0"))

    @property
    def held(self) -> tuple[float, float]:
        """From when until when it held its places."""
        assert self.launched is not None and self.ended is not None, self
        return self.launched, self.ended


@dataclass
class ManyProducts:
    """Products that are served.

    Args:
        dev: Where.
        products: All of them.
    """

    dev: DagsterDev
    products: Sequence[Product]

    def launch(self, product: Product, *, job: str | None = None, **config: Any) -> str:
        """Ask for a run of a product and return its id.

        Args:
            product: Of which.
            job: The product's own when None.
            config: Run config.
        """
        # Late: it is a helper of tests alone, and imports what only they need.
        from tests.integration.observing.developing import launch

        assets = [f"{product.slug}/only"] if job else None
        return launch(self.dev, LOCATION, job or f"{product.slug}_run", assets, **config)

    def runs(self, **tags: str) -> list[SeenRun]:
        """Return the runs with these tags, newest first.

        Args:
            tags: Of the runs; `product` stands for `floe/product`.
        """
        named = [{"key": f"floe/{key}", "value": value} for key, value in tags.items()]
        return [_seen(run) for run in self.dev.graphql(RUNS, tags=named)["runsOrError"]["results"]]

    def ends(self, ids: Iterable[str], seconds: float) -> list[SeenRun]:
        """Wait until runs have ended, and return them."""
        wanted = set(ids)

        def all_ended() -> bool:
            # Their times are asked for once: that is a query of the event log for each run.
            found = self.dev.graphql(STATUSES)["runsOrError"]["results"]
            return wanted <= {run["id"] for run in found if run["status"] in ENDED}

        self.dev.until(f"the end of {len(wanted)} runs", all_ended, seconds)
        return [run for run in self.runs() if run.id in wanted]


def _seen(run: Mapping[str, Any]) -> SeenRun:
    stats = run["stats"]
    steps = [(step["startTime"], step["endTime"]) for step in run["stepStats"]]
    return SeenRun(
        run["id"],
        run["status"],
        {tag["key"]: tag["value"] for tag in run["tags"]},
        stats["enqueuedTime"],
        stats["launchTime"],
        stats["endTime"],
        tuple((begin, end) for begin, end in steps if begin and end),
    )


def limits(*, engine: int, catalog: int, product: int = 1) -> list[dict[str, Any]]:
    """Return limits as `concurrency.runs.tag_concurrency_limits` has them."""
    each = {"applyLimitPerUniqueValue": True}
    return [
        {"key": PRODUCT_TAG, "value": each, "limit": product},
        {"key": engine_tag("duckdb"), "limit": engine},
        {"key": CATALOG_TAG, "value": each, "limit": catalog},
    ]


def generate(folder: Path, home: Path, count: int) -> list[Product]:
    """Write and compile products of one model each, half of them in each of two catalogs.

    Args:
        folder: Of the project.
        home: For FLOE_HOME, as `DagsterDev` has it.
        count: How many.
    """
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    package = folder / LOCATION
    package.mkdir()
    (folder / "workspace.yaml").write_text(WORKSPACE)
    (package / "__init__.py").touch()
    (package / "definitions.py").write_text(DEFINITIONS)
    products = []
    for number in range(count):
        catalog = "ab"[number % 2]
        warehouse = f"file://{home}/floe/warehouse-{catalog}"
        (folder / f"manifest-{catalog}.yaml").write_text(MANIFEST.format(name=catalog, warehouse=warehouse))
        slug = f"product_{number:02}"
        product = package / slug
        (product / "models").mkdir(parents=True)
        (product / "floe.yaml").write_text(SPEC.format(name=slug.replace("_", "-"), catalog=catalog))
        (product / "dbt_project.yml").write_text(
            f"name: {slug}\nversion: 1.0.0\nprofile: {slug}\nmodels: {{+materialized: table}}\n"
        )
        (product / "models" / "only.sql").write_text(MODEL.format(number=number, fifo=fifo))
        bake(product, FloeHome(home / "floe"))
        products.append(Product(slug, warehouse))
    return products


@contextmanager
def served(
    folder: Path, home: Path, count: int, tag_limits: list[dict[str, Any]], **monitoring: Any
) -> Iterator[ManyProducts]:
    """Serve generated products in `dagster dev`, with the settings that `make` gives it and other limits.

    Args:
        folder: Of the project; empty.
        home: For FLOE_HOME, DAGSTER_HOME and the output.
        count: How many products.
        tag_limits: What the queue limits.
        monitoring: Settings of `run_monitoring`.
    """
    products = generate(folder, home, count)
    local = home / "root" / "deploy" / "local"
    local.mkdir(parents=True)
    settings = yaml.safe_load((ROOT / "deploy" / "local" / "dagster.yaml").read_text())
    settings["run_monitoring"] |= monitoring
    settings["concurrency"]["runs"]["tag_concurrency_limits"] = tag_limits
    (local / "dagster.yaml").write_text(yaml.safe_dump(settings))
    with pytest.MonkeyPatch.context() as while_it_starts:
        while_it_starts.setattr(tests.dagster_dev, "ROOT", home / "root")
        dev = DagsterDev(folder, home)
    try:
        dev.until("the products", lambda: dev.locations() == {LOCATION: "RepositoryLocation"}, 180)
        yield ManyProducts(dev, products)
    finally:
        dev.stop()


def most_at_once(spans: Iterable[tuple[float, float]]) -> int:
    """Return how many of these spans of time overlap at most."""
    # One that ends at the moment in which another begins gave its place away.
    changes = sorted(change for begin, end in spans for change in ((begin, 1), (end, -1)))
    now = most = 0
    for _moment, change in changes:
        now += change
        most = max(most, now)
    return most


def most_of_each(runs: Iterable[SeenRun], key: Callable[[SeenRun], str]) -> dict[str, int]:
    """Return how many runs were launched at once at most, by a property of theirs."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        spans.setdefault(key(run), []).append(run.held)
    return {value: most_at_once(held) for value, held in spans.items()}


def overtaken(runs: Sequence[SeenRun], seconds: float) -> tuple[list[tuple[SeenRun, SeenRun]], int]:
    """Return pairs in which a later turn of one product went before an earlier one of another product.

    Only runs of one catalog are compared, since another catalog's may have been full.

    Args:
        runs: All of them.
        seconds: For which the earlier turn must have waited already: the queue looks every five.

    Returns:
        The pairs, and how many could have been such pairs.
    """
    pairs, compared = [], 0
    for late in (run for run in runs if run.turn < 0):
        for early in (run for run in runs if run.turn > late.turn):
            if (
                early.tags[CATALOG_TAG] != late.tags[CATALOG_TAG]
                or early.tags[PRODUCT_TAG] == late.tags[PRODUCT_TAG]
            ):
                continue
            if early.queued < late.held[0] - seconds:
                compared += 1
                if early.held[0] > late.held[0]:
                    pairs.append((late, early))
    return pairs, compared
