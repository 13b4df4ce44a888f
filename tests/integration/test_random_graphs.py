"""Random small products through failures, kills and retries: what is published, by an oracle that knows the rules alone.

Most of them run with a dbt that is scripted; what it assumes stands in `tests/graphs/stand_in.py`. Some go through the real
thing, several side by side in one product, so that they are compiled once: what real dbt builds, skips and says is held to the
same oracle, and its manifest to the one that is made for the stand-in.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from floe_dagster.compilation.dbt_server import own_dbt
from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.execution.dbt_process import DbtProgram
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.schemas.product_index import ProductIndex
from tests.graphs.drawing import products
from tests.graphs.driver import Driver
from tests.graphs.project import write_project
from tests.graphs.stand_in import StandIn, bundle_of
from tests.graphs.story import Node, Step, Story, Test

FIXED = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
ROOM = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
"""Where nothing is written to a disk: most of what a run with the stand-in costs."""


def tell(story: Story, shop: Path) -> None:
    """Run a story with the stand-in, in a folder of its own."""
    bundle = bundle_of(story, shop)
    with tempfile.TemporaryDirectory(dir=ROOM) as folder, one_duckdb(Path(folder)):
        home = FloeHome(Path(folder) / "home")
        catalog = open_catalog(None, None, home=home)
        stand_in = StandIn(story, Path())
        driver = Driver(story, bundle, home, catalog, DbtProgram("dbt", start=stand_in))
        stand_in.file = driver.file
        driver.tell()


@contextmanager
def one_duckdb(folder: Path) -> Iterator[None]:
    """Keep each DuckDB file open as long as it lies there: opening one is most of what a run with the stand-in costs.

    Args:
        folder: That DuckDB may read and write.
    """
    opened: dict[str, Any] = {}
    connect = duckdb.connect

    def cursor(file: str = ":memory:", read_only: bool = False) -> Any:
        if file not in opened or not (file == ":memory:" or Path(file).exists()):
            opened.pop(file, None)
            opened[file] = connect(file)
            opened[file].execute("set allowed_directories = ?", [[str(folder)]])
            opened[file].execute("set enable_external_access = false")
        return opened[file].cursor()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duckdb, "connect", cursor)
        yield


RAW = ("raw_events",)
ON_A, ON_V = Test("t", "generic", ("a",)), Test("t", "generic", ("v",))
FOUND = {
    "a view shows what has failed": Story(
        (Node("a", "table", RAW), Node("v", "view", ("a",)), Node("c", "table", ("v",))),
        (ON_A,),
        (Step(), Step(("a",), ("t",)), Step(("c",))),
    ),
    "through an ephemeral model and another view": Story(
        (
            Node("a", "table", RAW),
            Node("e", "ephemeral", ("a",)),
            Node("v", "view", ("e",)),
            Node("w", "view", ("v",)),
            Node("c", "table", ("w",)),
        ),
        (ON_A,),
        (Step(), Step(("a",), ("t",)), Step(("c",))),
    ),
    "a view shows what it has not been tested with": Story(
        (Node("a", "table", RAW), Node("v", "view", ("a",)), Node("c", "table", ("v",))),
        (ON_V,),
        (Step(), Step(("a",)), Step(("c",), ("t",))),
    ),
    "the same in one run": Story(
        (Node("a", "table", RAW), Node("v", "view", ("a",)), Node("c", "table", ("v",))),
        (ON_V,),
        (Step(), Step(("a", "c"), ("t",))),
    ),
    "a full refresh of what is not published fails": Story(
        (Node("a", "append", RAW, publish=False), Node("c", "table", ("a",))),
        (ON_A,),
        (Step(), Step(), Step(fails=("t",), full_refresh=True), Step()),
    ),
    "a snapshot failed before a full refresh": Story(
        (Node("a", "snapshot", RAW), Node("c", "table", ("a",))),
        (ON_A,),
        (Step(), Step(fails=("t",)), Step(full_refresh=True), Step()),
    ),
    "a snapshot that was never published": Story(
        (Node("a", "snapshot", RAW), Node("b", "snapshot", RAW, publish=False), Node("c", "table", ("b",))),
        (ON_A, Test("u", "generic", ("b",))),
        (Step(fails=("t", "u")), Step(full_refresh=True)),
    ),
    "built since a test reads it, and not tested": Story(
        (*(Node(name, "table", RAW) for name in "abc"), Node("d", "table", ("a",))),
        (Test("s", "singular", ("a", "c")), Test("r", "compared", ("b", "a"))),
        (Step(("b",)), Step(("d",), ("s",))),
    ),
    "a source is compared with a model": Story(
        (Node("a", "table", RAW), Node("b", "table", ("raw_orders",))),
        (Test("t", "compared", ("raw_events", "b")),),
        (Step(fails=("t",)),),
    ),
}


@pytest.mark.parametrize("story", [pytest.param(story, id=name) for name, story in FOUND.items()])
def test_what_was_found_once(shop: Path, story: Story) -> None:
    tell(story, shop)


@settings(FIXED, max_examples=4)
@given(story=products())
def test_what_is_published_is_what_the_rules_say(shop: Path, story: Story) -> None:
    tell(story, shop)


@pytest.mark.slow
@pytest.mark.parametrize("tenth", range(10))
def test_what_is_published_of_500_graphs_is_what_the_rules_say(shop: Path, tenth: int) -> None:
    graphs: list[str] = []

    @seed(tenth)
    @settings(FIXED, derandomize=False, max_examples=13)
    @given(story=products(graphs=5))
    def told(story: Story) -> None:
        graphs.extend({node.name.partition("_")[0] for node in story.nodes})
        tell(story, shop)

    told()
    assert len(graphs) >= 48


def tell_really(story: Story, shop: Path, home: FloeHome) -> None:
    """Compile a story and run it with dbt."""
    write_project(shop, story)
    result = compile_product(shop, home=home)
    assert result.bundle is not None, result.findings
    assert facts(result.bundle.index()) == facts(bundle_of(story, shop).index())
    catalog = open_catalog(None, None, home=home)
    Driver(story, result.bundle, home, catalog, DbtProgram(str(own_dbt()))).tell()


def facts(index: ProductIndex) -> dict[str, Any]:
    """Return what a run reads in an index; a generic test has a hash in its unique id."""
    assets = {
        asset.name: (
            asset.id,
            asset.materialized,
            asset.published,
            asset.deps,
            asset.relation,
            asset.unique_key,
        )
        for asset in index.assets
    }
    checks = {
        check.name: (
            check.asset,
            {*check.reads},
            {*check.withholds},
            check.type,
            check.severity,
            check.may_warn,
        )
        for check in index.checks
    }
    return {**assets, **checks}


def drawn(number: int, graphs: int, steps: int) -> Story:
    """Return a product for real dbt, always the same one for a number; most of what can happen happens in it."""
    found: list[Story] = []

    @seed(number)
    @settings(FIXED, derandomize=False, max_examples=20, phases=[Phase.generate])
    @given(story=products(graphs=graphs, steps=steps, is_scripted=False))
    def take(story: Story) -> None:
        found.append(story)

    take()
    return max(
        found, key=lambda story: (len(story.steps), len({*map(_ending, story.steps)}), len(story.tests))
    )


def _ending(step: Step) -> tuple[bool, ...]:
    return (step.killed is None, step.killed_after is None, step.retry, step.full_refresh, step.file_is_lost)


def test_real_dbt_is_held_to_the_same_rules(shop: Path, home: FloeHome) -> None:
    tell_really(drawn(0, graphs=2, steps=3), shop, home)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_real_dbt_is_held_to_the_same_rules_in_more_products(shop: Path, home: FloeHome, number: int) -> None:
    tell_really(drawn(number, graphs=8, steps=3), shop, home)
