"""The same product on DuckDB, on Trino with one node and with two; ours and a bare `dbt build` of each, at several scales.

All are whole processes, one at a time, and take turns. The first run of each makes everything and warms up, and so does a
second one at the first scale; measured are those after, which write all tables anew and merge the last 90 days of one.
The clusters stand side by side for the whole time, since one that has just started is slow; a node that waits takes two or
three hundredths of a core.

The peer has the same models, the same macros and the same profile, and writes into a schema or file of its own: what ours
does besides is to clone, to audit, to publish and to tell Dagster. On DuckDB the peer publishes nothing, so there the whole
of publication is on our side, and there is no bar.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from deploy.services import control
from deploy.services.environment import read_environment
from deploy.services.trino.cluster import Cluster
from deploy.services.trino.server import build
from deploy.services.trino.settings import Options
from floe_dagster.compilation.overlay import apply_overlay
from floe_dagster.compilation.profiles import build_dbt_profiles, write_profiles
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.platform.bootstrap import Bootstrap
from floe_dagster.schemas.artifacts import PluginRef
from floe_dagster.schemas.manifest import PlatformManifest
from floe_dagster.schemas.product import ProductSpec
from tests.benchmarks import tpch, trino_report
from tests.benchmarks.projects import Project, dbt, floe, usage
from tests.benchmarks.report import Row
from tests.benchmarks.trino_report import DUCKDB, ONE, TWO, Taken
from tests.conftest import ROOT
from tests.trino.shops import reached

SLUGS = {DUCKDB: "duckdb", ONE: "trino_one", TWO: "trino_two"}
HEAP = "2G"
"""Of each node; a query may have three tenths of it."""
SCALES = (0.1, 1.0)


@dataclass
class Arm:
    """One way to run the product at one scale, and what its runs took.

    Args:
        engine: DuckDB, or Trino and its number of nodes.
        scale: Of TPC-H.
        ours: `floe-dagster run`; else `dbt build`.
        command: The process.
        environment: Of it.
    """

    engine: str
    scale: float
    ours: bool
    command: list[str]
    environment: Mapping[str, str]
    times: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    def run(self) -> tuple[float, int]:
        """Run it and return its seconds, and the peak memory of it or of a process that it started, in bytes.

        Raises:
            RuntimeError: It failed; with the end of what it said.
        """
        elapsed, used = usage(self.command, self.environment)
        return elapsed, used.ru_maxrss * 1024


def measure(root: Path, scales: Sequence[float] = SCALES, rounds: int = 2) -> tuple[list[Row], str]:
    """Start services and clusters of this benchmark alone, and measure all arms at all scales.

    Args:
        root: A new folder.
        scales: At least two.
        rounds: Measured runs of each arm.

    Returns:
        The rows of the table, and how it grows, as Markdown.

    Raises:
        ServiceError: Go, Java or Maven is missing, or a service does not start.
    """
    scales = sorted(set(scales))
    arms: list[Arm] = []
    scans: dict[float, tuple[float, float]] = {}
    different: dict[float, list[str]] = {}
    with _platform(root) as (clusters, manifest):
        plugins = {name: PluginRef(**manifest["plugins"][name]) for name in ("catalog", "storage")}
        catalog = open_catalog(plugins["catalog"], plugins["storage"], home=FloeHome(root / "reader"))
        for scale in scales:
            print(f"scale {scale:g}: writing the rows", flush=True)
            schema = f"rows_{_slug(scale)}"
            tpch.write_rows(clusters[TWO], catalog, scale, schema, root / schema)
            made = _arms(root, scale, schema, clusters, manifest)
            # Nodes that have just started need more than one run until they are as fast as they get.
            _take_turns(made, rounds, before=1 if arms else 2)
            arms += made
            scans[scale] = tpch.scan_seconds(clusters[ONE], scale, schema)
            different[scale] = _different(clusters[ONE], scale)
            equal = len(tpch.PUBLISHED) - len(trino_report.names(different[scale]))
            print(f"same rows: {equal} of {len(tpch.PUBLISHED)} models at scale {scale:g}", flush=True)
            for line in different[scale]:
                print(line, flush=True)
    taken = [Taken(arm.engine, arm.scale, arm.ours, median(arm.times), max(arm.peaks)) for arm in arms]
    return trino_report.rows(taken, different), trino_report.growth(taken, scans, rounds)


def _take_turns(arms: Sequence[Arm], rounds: int, before: int) -> None:
    """Run each arm once a round, in the other direction the next time.

    Args:
        arms: At one scale.
        rounds: That are measured.
        before: Rounds before them that make the tables and warm up.
    """
    for turn in range(1 - before, rounds + 1):
        for arm in arms if turn % 2 else reversed(arms):
            elapsed, peak = arm.run()
            what = "ours" if arm.ours else "dbt build"
            said = f"turn {turn} of {rounds}" if turn > 0 else "before the first turn"
            print(f"scale {arm.scale:g}, {said}: {arm.engine}, {what}: {elapsed:.1f} s", flush=True)
            if turn > 0:
                arm.times.append(elapsed)
                arm.peaks.append(peak)


@contextmanager
def _platform(root: Path) -> Iterator[tuple[dict[str, Cluster], dict[str, Any]]]:
    """Give the clusters by name and a manifest that names none, and end all of it afterwards."""
    root.mkdir(parents=True)
    tools = ROOT / ".floe" / "tools"
    control.build(tools)
    build(tools)
    folder = root / "services"
    clusters = {
        name: Cluster(root / SLUGS[name], tools, folder, Options(workers=workers, heap=HEAP))
        for name, workers in ((ONE, 0), (TWO, 1))
    }
    try:
        control.start(folder, tools)
        environment = read_environment(folder)
        os.environ |= {name: secret for name, secret in environment.items() if "ROOT" not in name}
        manifest: dict[str, Any] = yaml.safe_load((folder / "manifest.yaml").read_text())
        Bootstrap(PlatformManifest.model_validate(manifest), environ={**os.environ, **environment}).run()
        for name, cluster in clusters.items():
            print(f"starting {name}", flush=True)
            cluster.start()
        yield clusters, manifest
    finally:
        for cluster in clusters.values():
            cluster.stop()
        control.stop(folder)


def _arms(
    root: Path, scale: float, schema: str, clusters: dict[str, Cluster], manifest: dict[str, Any]
) -> list[Arm]:
    """Write the products of one scale, and return how each is run.

    Args:
        root: Its folder `schema` has the rows of DuckDB.
        scale: Of TPC-H.
        schema: Has the rows of Trino.
        clusters: By engine.
        manifest: The platform; which engine it computes on is added.
    """
    made = []
    for engine in SLUGS:
        name = _product(engine, scale)
        # As much memory as the machine has: the limit of the demo's manifest is that of its containers.
        compute: dict[str, Any] = {"type": "duckdb"}
        if engine in clusters:
            compute = {"type": "trino", "config": reached(clusters[engine])}
        platform = {**manifest, "plugins": {**manifest["plugins"], "compute": compute}}
        folder = tpch.write_product(root / "products" / name, name, root / schema, schema, platform)
        bare = _bare(folder, compute)
        ours = replace(bare, folder=folder, home=folder.parent / "home")
        made += [
            Arm(engine, scale, True, floe("run", str(folder)), ours.with_instance()),
            Arm(engine, scale, False, dbt(bare, "build"), bare.environment),
        ]
    return made


def _bare(product: Path, compute: dict[str, Any]) -> Project:
    """Return the project as it is compiled, with its profile, for dbt alone."""
    folder, name, engine = product.parent / "bare", product.name, compute["type"]
    shutil.copytree(product, folder)
    spec = ProductSpec.model_validate(yaml.safe_load((folder / "floe.yaml").read_text()))
    apply_overlay(folder, engine, spec, name)
    profiles = build_dbt_profiles(name, engine, compute.get("config", {}))
    if engine == "trino":
        profiles[name]["outputs"]["floe"]["schema"] = f"bare_{name}"
    home = FloeHome(product.parent / "bare-home")
    return Project(folder, home.path, write_profiles(profiles, home.profiles_dir(name), home))


def _product(engine: str, scale: float) -> str:
    return f"tpch_{SLUGS[engine]}_{_slug(scale)}"


def _slug(scale: float) -> str:
    return f"{scale:g}".replace(".", "_")


def _different(cluster: Cluster, scale: float) -> list[str]:
    """Return where the published tables of the engines differ, or are empty, each with the name of its table before a colon."""
    found = []
    for table in tpch.PUBLISHED:
        seen = {engine: tpch.seen(cluster, _product(engine, scale), table) for engine in SLUGS}
        if not seen[DUCKDB]["rows"]:
            found.append(f"{table}: no rows at all")
        found += [
            f"{table}: {engine} has {seen[engine]}, {DUCKDB} {seen[DUCKDB]}"
            for engine in SLUGS
            if not trino_report.same(seen[engine], seen[DUCKDB])
        ]
    return found
