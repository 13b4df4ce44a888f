"""`dagster dev`: an edit compiles by itself and is served; a broken one leaves what stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dagster_dev import DagsterDev

pytestmark = pytest.mark.slow

WORKSPACE = """\
load_from:
  - python_module: {module_name: shop.definitions, working_directory: ., location_name: shop}
"""
DEFINITIONS = """\
from floe_dagster import load_product_definitions

defs = load_product_definitions(__file__, sensor_interval_seconds=2)
"""


def described(text: str) -> str:
    return f"models:\n  - name: orders\n    description: {text}\n"


@pytest.fixture
def dev(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    (shop.parent / "workspace.yaml").write_text(WORKSPACE)
    (shop / "__init__.py").touch()
    (shop / "definitions.py").write_text(DEFINITIONS)
    (shop / "models" / "schema.yml").write_text(described("one"))
    running = DagsterDev(shop.parent, tmp_path_factory.mktemp("dev"))
    try:
        yield running
    finally:
        running.stop()


def test_edits_are_compiled_and_served_and_broken_ones_are_not(dev: DagsterDev, shop: Path) -> None:
    def served(description: str) -> bool:
        return dev.descriptions().get("shop/orders") == description

    def compiled() -> list[str]:
        return [run["status"] for run in dev.runs("shop_compile")]

    schema, spec = shop / "models" / "schema.yml", shop / "floe.yaml"
    dev.until("the first state", lambda: served("one"))
    for text in ("two", "one"):
        schema.write_text(described(text))
        dev.until(f"description {text}", lambda text=text: served(text))
    dev.until("the end of the runs", lambda: compiled() == ["SUCCESS"] * 3)

    good = spec.read_text()
    spec.write_text(good.replace("version: 1.0.0", "version: one"))
    dev.until("a failed compile", lambda: compiled() == ["FAILURE", *["SUCCESS"] * 3])
    failed = dev.runs("shop_compile")[0]["id"]
    assert "shop/floe.yaml:3:" in dev.error_of(failed)
    assert served("one")

    ticks = """{ sensorOrError(sensorSelector: {repositoryName: "__repository__", sensorName: "shop_sources",
        repositoryLocationName: "shop"}) { ... on Sensor { sensorState { ticks(limit: 3) { id status } } } } }"""

    def newest_ticks() -> list[dict[str, str]]:
        found: list[dict[str, str]] = dev.graphql(ticks)["sensorOrError"]["sensorState"]["ticks"]
        return found

    before = {tick["id"] for tick in newest_ticks()}
    dev.until(
        "three more ticks",
        lambda: before.isdisjoint(tick["id"] for tick in newest_ticks() if tick["status"] == "SKIPPED"),
    )
    assert compiled() == ["FAILURE", *["SUCCESS"] * 3]

    spec.write_text(good)
    schema.write_text(described("mended"))
    dev.until("the mended state", lambda: served("mended"))
    assert dev.locations() == {"shop": "RepositoryLocation"}
